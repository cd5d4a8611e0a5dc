//! The record of requests in flight, which the backend makes and the frontend keeps.

use std::fs::File;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::Payload;

/// Bytes of a queue's region before its entries, and of each of these ("Inflight I/O tracking").
/// Those of a packed ring, which are the longer ones.
const HEAD: u64 = 32;
const ENTRY: u64 = 32;

/// The answer to GET_INFLIGHT_FD: where the record is, and its file. Nothing is written there:
/// no request outlives its connection.
pub fn record(request: &VhostUserInflight) -> std::io::Result<(Vec<u8>, File)> {
    let (queues, queue_size) = (request.num_queues, request.queue_size);
    let size = u64::from(queues) * (HEAD + ENTRY * u64::from(queue_size));
    let size = size.next_multiple_of(4096).max(4096);
    let file = host_io::files::sealed_memfd("inflight", size)?;
    let reply = VhostUserInflight::new(size, 0, queues, queue_size);
    Ok((reply.to_bytes(), file))
}
