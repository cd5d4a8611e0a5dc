/*
 * Sessions with a device: it is set up from nothing, shown to work, and left in
 * the middle of its work. What ends one is a reset of the device, or of all.
 *
 * A device that has been reset is done with the driver's memory: buffers that
 * it had are filled with SCRIBBLE at the begin of the next session, and must
 * still be when it has been shown to work.
 */
#pragma once

#include "virtio.h"

#define SCRIBBLE	0xee

/* Each ends with requests in flight, and returns how many. */
u32 blk_session(struct virtio_device *device);
u32 stream_session(struct virtio_device *device);
u32 fs_session(struct virtio_device *device);

/* `resets=N` (100) sessions with every device, and a reset behind each. */
void sessions_with_resets(struct virtio_device *devices, u32 count);

/*
 * A session with every device, and a reboot of the machine in the middle of
 * all; until a byte comes on the console.
 */
void sessions_with_reboots(struct virtio_device *devices, u32 count);

/*
 * A session with every device, and nothing behind it: the machine is reset
 * from outside, with all devices in the middle of their work.
 */
void sessions_held(struct virtio_device *devices, u32 count);
