//! Virtqueues of both formats: what the device reads, writes, and notifies of.

mod buffers;
mod notify;
mod steps;

use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::types::{Check, Level, Need, Source};
use crate::driver::Format;
use buffers::{
    batch, done_means_done, framing, framing_many, full_ring, in_order, indirect,
    indirect_write_flag, many_laps, request, stop_and_continue, untouched, used_id, used_length,
    used_length_bound,
};
use notify::{
    event_not_reached, event_reached, kick_when_wanted, notification, spurious_kicks, suppressed,
};

pub use steps::no_stray;

const PACKED: Need = Need::Feature(VIRTIO_F_RING_PACKED, "VIRTIO_F_RING_PACKED");
const EVENT_IDX: Need = Need::Feature(VIRTIO_RING_F_EVENT_IDX, "VIRTIO_F_EVENT_IDX");
const INDIRECT: Need = Need::Feature(VIRTIO_RING_F_INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC");
const IN_ORDER: Need = Need::Feature(VIRTIO_F_IN_ORDER, "VIRTIO_F_IN_ORDER");

/// Declares a check of split rings and the same of packed ones.
macro_rules! both {
    ($($name:literal $level:ident $split:literal $packed:literal [$($need:ident),*] $run:path,
       $rule:literal;)*) => {
        pub const CHECKS: &[Check] = &[$(
            Check {
                name: concat!("split.", $name),
                level: Level::$level,
                source: Source::Virtio($split),
                rule: $rule,
                needs: &[Need::Sample $(, $need)*],
                run: |bench| $run(bench, Format::Split),
            },
            Check {
                name: concat!("packed.", $name),
                level: Level::$level,
                source: Source::Virtio($packed),
                rule: $rule,
                needs: &[Need::Sample, PACKED $(, $need)*],
                run: |bench| $run(bench, Format::Packed),
            },
        )*];
    };
}

both! {
    "request" Must "2.7.14 Receiving Used Buffers From The Device"
        "2.8.22 Receiving Used Buffers From The Device" [] request,
        "the device uses the buffers that it is given, each once";
    "used-id" Must "2.7.8 The Virtqueue Used Ring" "2.8.13 The Virtqueue Descriptor Format" []
        used_id,
        "the id of a used element is that of the buffer that was made available, whatever was \
         used before it";
    "used-length" Must "2.7.8.1 Device Requirements: The Virtqueue Used Ring"
        "2.8.4 Element Address and Length" [] used_length,
        "the device MUST write at least len bytes to the buffer, beginning at the first \
         device-writable part: what it says it wrote is written";
    "used-length-bound" Must "2.7.8 The Virtqueue Used Ring" "2.8.4 Element Address and Length" []
        used_length_bound,
        "len is the number of bytes written into the device writable portion: not more than it has";
    "readable-untouched" Must "2.7.5.1 Device Requirements: The Virtqueue Descriptor Table"
        "2.8.15 Device Requirements: The Virtqueue Descriptor Table" [] untouched,
        "a device MUST NOT write to a device-readable buffer, nor to memory that it was not given";
    "done-means-done" Must "2.7.8 The Virtqueue Used Ring"
        "2.8.22 Receiving Used Buffers From The Device" [] done_means_done,
        "the device returns buffers once it is done with them: it does not write into a buffer \
         that it has used";
    "framing" Must "2.7.4.1 Device Requirements: Message Framing" "2.8.5 Scatter-Gather Support" []
        framing,
        "the device MUST NOT make assumptions about the particular arrangement of descriptors: of \
         the two parts of a buffer, each may be in two";
    "framing-many" Should "2.7.4.1 Device Requirements: Message Framing"
        "2.8.5 Scatter-Gather Support" [] framing_many,
        "the device MAY have a reasonable limit of descriptors it will allow in a chain: four of \
         each kind are not beyond it";
    "batch" Must "2.7.13 Supplying Buffers to The Device" "2.8.21 Supplying Buffers to The Device"
        [] batch,
        "several buffers that are made available at once are all used, after one notification";
    "full-ring" Must "2.7.5 The Virtqueue Descriptor Table" "2.8.5 Scatter-Gather Support" []
        full_ring,
        "the driver may use every descriptor of the ring at once, and again";
    "many-laps" Must "2.7.13.3 Updating idx" "2.8.1 Driver and Device Ring Wrap Counters" []
        many_laps,
        "the ring is used round and round";
    "notification" Must "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [] notification,
        "the device MUST send a notification after it has used a buffer, where the driver did not \
         suppress it";
    "notification-suppressed" Should
        "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [] suppressed,
        "the device SHOULD NOT send a notification where the driver does not want one";
    "event-idx-reached" Must "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [EVENT_IDX] event_reached,
        "with EVENT_IDX the device MUST send a notification when it uses the buffer for which the \
         driver asked for one";
    "event-idx-not-reached" Should
        "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [EVENT_IDX] event_not_reached,
        "with EVENT_IDX the device SHOULD NOT send a notification before the buffer for which the \
         driver asked for one";
    "kick-only-when-wanted" Must
        "2.7.10.2 Device Requirements: Available Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [] kick_when_wanted,
        "the device may suppress notifications, and uses what was made available without one";
    "spurious-kicks" Must "2.7.10.2 Device Requirements: Available Buffer Notification Suppression"
        "2.8.16 Driver Requirements: The Virtqueue Descriptor Table" [] spurious_kicks,
        "the device MUST handle spurious notifications from the driver";
    "indirect" Must "2.7.5.3 Indirect Descriptors"
        "2.8.7 Indirect Flag: Scatter-Gather Support" [INDIRECT] indirect,
        "with INDIRECT_DESC a descriptor may refer to a table of the buffer's descriptors";
    "indirect-write-flag" Must "2.7.5.3.2 Device Requirements: Indirect Descriptors"
        "2.8.7 Indirect Flag: Scatter-Gather Support" [INDIRECT] indirect_write_flag,
        "the device MUST ignore the write-only flag in the descriptor that refers to an indirect \
         table";
    "in-order" Must "6.2 Device Requirements: Reserved Feature Bits"
        "6.2 Device Requirements: Reserved Feature Bits" [IN_ORDER] in_order,
        "if VIRTIO_F_IN_ORDER has been negotiated, a device MUST use buffers in the same order in \
         which they have been available";
    "stop-and-continue" Must "2.7 Split Virtqueues" "2.8 Packed Virtqueues" [] stop_and_continue,
        "a ring that is stopped and started at the base that GET_VRING_BASE returned continues \
         where it was (vhost-user, \"VHOST_USER_GET_VRING_BASE\")";
}
