//! How long a frontend is waited for.

use std::time::Duration;

/// How long the frontend may take over the rest of a message that it has begun, over making room
/// for a reply, and over its end of a transfer.
pub const IO_DEADLINE: Duration = Duration::from_secs(10);
