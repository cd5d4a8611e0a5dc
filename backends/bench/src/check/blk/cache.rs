//! The write cache of block devices, whose mode the driver sets (virtio 1.4, section 5.2.5).

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{GetConfig, SetConfig};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

use crate::check::bench::Bench;
use crate::check::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::Session;

const NEEDS: &[Need] = &[
    Need::Type(DeviceType::BLK),
    Need::Protocol(Protocol::CONFIG),
    Need::Feature(VIRTIO_BLK_F_CONFIG_WCE, "VIRTIO_BLK_F_CONFIG_WCE"),
];

pub const CHECKS: &[Check] = &[
    Check {
        name: "blk.cache-mode",
        level: Level::Must,
        source: Source::Virtio("5.2.5 Device Initialization"),
        rule: "if VIRTIO_BLK_F_CONFIG_WCE is negotiated, the cache mode can be read or set \
               through the writeback field: 0 (writethrough) or 1 (writeback)",
        needs: NEEDS,
        run: cache_mode,
    },
    Check {
        name: "blk.cache-mode-without-flush",
        level: Level::Must,
        source: Source::Virtio("5.2.5.2 Device Requirements: Device Initialization"),
        rule: "if VIRTIO_BLK_F_CONFIG_WCE is negotiated but VIRTIO_BLK_F_FLUSH is not, the device \
               MUST initialize writeback to 0",
        needs: NEEDS,
        run: without_flush,
    },
];

/// Offset of `writeback` in the configuration space.
const WRITEBACK: usize = 32;

fn mode(session: &mut Session) -> Result<u8, Fault> {
    let size = WRITEBACK as u32 + 1;
    let reply = session.frontend().request(&GetConfig { size })?;
    let mode = reply.0.get(WRITEBACK).copied();
    mode.ok_or_else(|| Fault::broken(format!("GET_CONFIG of {size} bytes returned fewer")))
}

fn cache_mode(bench: &Bench) -> Verdict {
    let required = bench.setup().require(&[VIRTIO_BLK_F_CONFIG_WCE]);
    let mut session = bench.start(&required.require_protocol(Protocol::CONFIG))?;
    let first = mode(&mut session)?;
    demand(first <= 1, || format!("writeback is {first}"))?;
    for wanted in [0, 1, first] {
        let write = SetConfig {
            offset: WRITEBACK as u32,
            data: &[wanted],
        };
        session.frontend().send(&write)?;
        let found = mode(&mut session)?;
        demand(found == wanted, || {
            format!("writeback was set to {wanted} and is {found}")
        })?;
    }
    Ok(())
}

fn without_flush(bench: &Bench) -> Verdict {
    let setup = bench
        .setup()
        .require(&[VIRTIO_BLK_F_CONFIG_WCE])
        .without(&[VIRTIO_BLK_F_FLUSH])
        .require_protocol(Protocol::CONFIG);
    let found = mode(&mut bench.start(&setup)?)?;
    demand(found == 0, || format!("writeback is {found}"))
}
