//! What a disk offers, and its configuration space.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::disk::{BLK, CONFIG, LAYOUT, SECTOR, configured};
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};

const INITIALIZATION: Source = Source::Virtio("5.2.5.2 Device Requirements: Device Initialization");

pub const CHECKS: &[Check] = &[
    Check {
        name: "blk.flush-offered",
        level: Level::Should,
        source: INITIALIZATION,
        rule: "devices SHOULD always offer VIRTIO_BLK_F_FLUSH",
        needs: &[BLK],
        run: flush_offered,
    },
    Check {
        name: "blk.wce-needs-flush",
        level: Level::Must,
        source: INITIALIZATION,
        rule: "devices MUST offer VIRTIO_BLK_F_FLUSH if they offer VIRTIO_BLK_F_CONFIG_WCE",
        needs: &[
            BLK,
            Need::Feature(VIRTIO_BLK_F_CONFIG_WCE, "VIRTIO_BLK_F_CONFIG_WCE"),
        ],
        run: wce_needs_flush,
    },
    Check {
        name: "blk.config-padding",
        level: Level::Must,
        source: INITIALIZATION,
        rule: "the device MUST initialize padding bytes unused0 and unused1 to 0",
        needs: &[BLK, CONFIG],
        run: config_padding,
    },
    Check {
        name: "blk.block-size",
        level: Level::Should,
        source: LAYOUT,
        rule: "blk_size is the block size of the disk: a power of 2, of 512 bytes or more",
        needs: &[
            BLK,
            CONFIG,
            Need::Feature(VIRTIO_BLK_F_BLK_SIZE, "VIRTIO_BLK_F_BLK_SIZE"),
        ],
        run: block_size,
    },
    Check {
        name: "blk.num-queues",
        level: Level::Must,
        source: LAYOUT,
        rule: "num_queues specifies the number of queues: there is one at least, and not more \
               than GET_QUEUE_NUM returns",
        needs: &[
            BLK,
            CONFIG,
            Need::Feature(VIRTIO_BLK_F_MQ, "VIRTIO_BLK_F_MQ"),
        ],
        run: num_queues,
    },
    Check {
        name: "blk.limits",
        level: Level::Should,
        source: Source::Virtio("5.2.5 Device Initialization"),
        rule: "max_discard_sectors, max_discard_seg, max_write_zeroes_sectors and \
               max_write_zeroes_seg can be read to determine what the driver can use: they are \
               not 0 where the feature is offered",
        needs: &[BLK, CONFIG],
        run: limits,
    },
];

fn flush_offered(bench: &Bench) -> Verdict {
    demand(bench.profile().has(VIRTIO_BLK_F_FLUSH), || {
        "VIRTIO_BLK_F_FLUSH is not offered".into()
    })
}

fn wce_needs_flush(bench: &Bench) -> Verdict {
    flush_offered(bench)
}

fn config_padding(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let unused0 = config.number::<1>(33);
    demand(unused0 == 0, || format!("unused0 is {unused0:#x}"))?;
    let unused1 = config.number::<3>(57);
    demand(unused1 == 0, || format!("unused1 is {unused1:#x}"))
}

fn block_size(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let size = config.number::<4>(20);
    demand(size.is_power_of_two() && size >= SECTOR, || {
        format!("blk_size is {size}")
    })
}

fn num_queues(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let queues = config.number::<2>(34);
    let offered = bench.profile();
    demand(queues >= 1, || "num_queues is 0".into())?;
    let known = offered.has_protocol(Protocol::MQ);
    demand(!known || queues <= offered.queues as u64, || {
        format!(
            "num_queues is {queues}, and GET_QUEUE_NUM returned {}",
            offered.queues
        )
    })
}

fn limits(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let fields = [
        (VIRTIO_BLK_F_DISCARD, "max_discard_sectors", 36),
        (VIRTIO_BLK_F_DISCARD, "max_discard_seg", 40),
        (VIRTIO_BLK_F_WRITE_ZEROES, "max_write_zeroes_sectors", 48),
        (VIRTIO_BLK_F_WRITE_ZEROES, "max_write_zeroes_seg", 52),
    ];
    for (feature, name, at) in fields {
        let is_limit = config.number::<4>(at) > 0 || !bench.profile().has(feature);
        demand(is_limit, || format!("{name} is 0"))?;
    }
    Ok(())
}
