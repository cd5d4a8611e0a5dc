//! How long a frontend and a device are waited for.

use std::time::Duration;

/// How long the frontend may take over the rest of a message that it has begun, over making room
/// for a reply, and over its end of a transfer.
pub const IO_DEADLINE: Duration = Duration::from_secs(10);

/// How long a request that has changed the configuration space may wait until its driver can read
/// the new one.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(1);

/// How long a ring that stops may have requests in flight: longer than Outboard waits.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(300);

/// Between log lines about one wait.
pub const LOG_EVERY: Duration = Duration::from_secs(5);
