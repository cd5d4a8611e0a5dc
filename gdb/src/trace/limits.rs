//! How much of a trace gdb may define.

/// Most tracepoints, and most actions of one.
pub(super) const MAX_POINTS: usize = 1024;
pub(super) const MAX_ACTIONS: usize = 1024;

/// Most bytes of all expressions of one tracepoint.
pub(super) const MAX_CODE: usize = 64 << 10;

/// Most bytes of what is kept of definitions only for gdb to read it back.
pub(super) const MAX_TEXT: usize = 4 << 20;
