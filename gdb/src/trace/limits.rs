//! How much of a trace gdb may define.

/// Most tracepoints, and most actions of one.
pub(super) const MAX_POINTS: usize = 1024;
pub(super) const MAX_ACTIONS: usize = 1024;

/// Most bytes of all expressions of one tracepoint.
pub(super) const MAX_CODE: usize = 64 << 10;

/// Most bytes of definitions that are kept only for gdb to read back.
pub(super) const MAX_TEXT: usize = 4 << 20;
