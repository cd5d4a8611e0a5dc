//! Limits on what a peer may send.

/// The longest payload that is accepted, in bytes: a whole configuration space of 4096 bytes
/// behind its own header of 12. No defined message is longer.
pub const MAX_PAYLOAD: usize = 12 + 4096;

/// The most files that a backend may send with a message (vhost-user document, "Back-end
/// communication").
pub const BACKEND_FILES: usize = 8;

/// The most files that a frontend may send with a message: the kernel's own limit (SCM_MAX_FD),
/// so that a wrong number of them is counted, closed and answered. SET_MEM_TABLE has as many as
/// it has regions.
pub const FRONTEND_FILES: usize = 253;
