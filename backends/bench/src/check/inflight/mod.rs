//! The record of requests in flight, which outlives a backend.

mod away;
mod buffer;
mod killed;
mod record;
mod resubmit;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;

pub use record::start_with_record;

use super::types::{Check, Level, Need, Source};

const INFLIGHT: Need = Need::Protocol(Protocol::INFLIGHT_SHMFD);
const PACKED: Need = Need::Feature(VIRTIO_F_RING_PACKED, "RING_PACKED");
const GET: Source = Source::VhostUser("VHOST_USER_GET_INFLIGHT_FD");
const TRACKING: Source = Source::VhostUser("Inflight I/O tracking");

pub const CHECKS: &[Check] = &[
    Check {
        name: "inflight.get",
        level: Level::Must,
        source: GET,
        rule: "this message is submitted by the front-end to get a shared buffer from the \
               back-end: the reply has a file that is as long as it says",
        needs: &[INFLIGHT],
        run: buffer::get,
    },
    Check {
        name: "inflight.size",
        level: Level::Must,
        source: TRACKING,
        rule: "the buffer has a region for each queue, with a DescStateSplit for each descriptor",
        needs: &[INFLIGHT],
        run: buffer::split_size,
    },
    Check {
        name: "inflight.packed-size",
        level: Level::Must,
        source: TRACKING,
        rule: "for packed virtqueues the buffer has a region for each queue, with a \
               DescStatePacked for each descriptor",
        needs: &[INFLIGHT, PACKED],
        run: buffer::packed_size,
    },
    Check {
        name: "inflight.uninitialized",
        level: Level::Must,
        source: TRACKING,
        rule: "the version is 1, or zero for an uninitialized buffer, in a buffer that is new, and \
               no descriptor is in flight",
        needs: &[INFLIGHT],
        run: buffer::uninitialized,
    },
    Check {
        name: "inflight.short-file-is-refused",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_INFLIGHT_FD"),
        rule: "a buffer that is shorter than its queues need is refused",
        needs: &[INFLIGHT, Need::Protocol(Protocol::REPLY_ACK)],
        run: buffer::short_file,
    },
    Check {
        name: "inflight.without-a-buffer",
        level: Level::Should,
        source: TRACKING,
        rule: "a front-end that negotiates INFLIGHT_SHMFD and hands over no buffer is served",
        needs: &[INFLIGHT, Need::Sample],
        run: buffer::without_buffer,
    },
    Check {
        name: "inflight.cleared-when-used",
        level: Level::Must,
        source: TRACKING,
        rule: "the inflight field of each entry is set to 0 when its buffer was used, and used_idx \
               to the idx value of the used ring",
        needs: &[INFLIGHT, Need::Sample],
        run: resubmit::split_cleared,
    },
    Check {
        name: "inflight.resubmitted",
        level: Level::Must,
        source: TRACKING,
        rule: "when reconnecting: resubmit inflight DescStateSplit entries: those that another \
               back-end took and did not use",
        needs: &[INFLIGHT, Need::Sample],
        run: resubmit::resubmitted,
    },
    Check {
        name: "inflight.last-batch",
        level: Level::Must,
        source: TRACKING,
        rule: "when reconnecting: if used_idx does not match the idx of the used ring, the entries \
               of the last batch are not in flight: what was used is not used again",
        needs: &[INFLIGHT, Need::Sample],
        run: resubmit::last_batch,
    },
    Check {
        name: "inflight.killed",
        level: Level::Must,
        source: TRACKING,
        rule: "to support reconnecting after restart or crash, the back-end resubmits inflight \
               I/Os: each request comes back once when the process is killed at any moment",
        needs: &[INFLIGHT, Need::Sample, Need::Restarts],
        run: killed::split,
    },
    Check {
        name: "inflight.packed-cleared-when-used",
        level: Level::Must,
        source: TRACKING,
        rule: "of a packed virtqueue too the inflight field of each head entry is set to 0 when \
               its buffer was used, and old_used_idx to used_idx",
        needs: &[INFLIGHT, PACKED, Need::Sample],
        run: resubmit::packed_cleared,
    },
    Check {
        name: "inflight.packed-resubmitted",
        level: Level::Must,
        source: TRACKING,
        rule: "when reconnecting: resubmit inflight DescStatePacked entries: those that another \
               back-end took and did not use",
        needs: &[INFLIGHT, PACKED, Need::Sample],
        run: resubmit::packed_resubmitted,
    },
    Check {
        name: "inflight.packed-killed",
        level: Level::Must,
        source: TRACKING,
        rule: "to support reconnecting after restart or crash, the back-end resubmits inflight \
               I/Os of packed virtqueues too: each request comes back once when the process is \
               killed at any moment",
        needs: &[INFLIGHT, PACKED, Need::Sample, Need::Restarts],
        run: killed::packed,
    },
];
