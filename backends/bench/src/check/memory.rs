//! Guest memory: regions, where they are, and how they come and go.

use std::os::fd::AsFd;
use std::rc::Rc;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vhost_user_wire::Payload;
use vhost_user_wire::frontend::{
    AddMemoryRegion, FrontendMessage, GetMaxMemSlots, RemoveMemoryRegion,
};

use super::bench::Bench;
use super::message::all_writers_gone;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Answer, Buffers, DriverError, Layout, Memory, PAGE, QUIET, Session, Setup};

const SLOTS: Need = Need::Protocol(Protocol::CONFIGURE_MEM_SLOTS);
const ACK: Need = Need::Protocol(Protocol::REPLY_ACK);
const GPA: Need = Need::Protocol(Protocol::GPA_ADDRESSES);
const ACCESS: Source = Source::VhostUser("Memory access");
const REMOVE: Source = Source::VhostUser("VHOST_USER_REM_MEM_REG");

pub const CHECKS: &[Check] = &[
    Check {
        name: "memory.two-regions",
        level: Level::Must,
        source: ACCESS,
        rule: "guest addresses map to the vhost memory region containing that guest address: \
               rings in one region, buffers in another, a gap between them",
        needs: &[Need::Sample],
        run: two_regions,
    },
    Check {
        name: "memory.mmap-offset",
        level: Level::Must,
        source: Source::VhostUser("Memory region description"),
        rule: "mmap offset is a 64-bit offset where the region starts in the mapped memory",
        needs: &[Need::Sample],
        run: mmap_offset,
    },
    Check {
        name: "memory.user-addresses-are-opaque",
        level: Level::Must,
        source: ACCESS,
        rule: "user addresses are arbitrary opaque values: the user address of one region may be \
               the guest address of another",
        needs: &[Need::Sample],
        run: crossed_addresses,
    },
    Check {
        name: "memory.table-replaced",
        level: Level::Should,
        source: Source::VhostUser("Ring states"),
        rule: "while processing the rings, the back-end must support changing some configuration \
               aspects on the fly: a memory table with one region more",
        needs: &[Need::Sample],
        run: table_replaced,
    },
    Check {
        name: "memory.unknown-buffer",
        level: Level::Should,
        source: ACCESS,
        rule: "a buffer outside of all regions is not accessed; the back-end serves on, or hangs up",
        needs: &[Need::Sample],
        run: unknown_buffer,
    },
    Check {
        name: "memory.gpa-addresses",
        level: Level::Must,
        source: Source::VhostUser("A vring address description"),
        rule: "when VHOST_USER_PROTOCOL_F_GPA_ADDRESSES (bit 21) is negotiated, the ring \
               addresses are guest physical addresses (bit 21 was SHMEM in rust-vmm's crates \
               before)",
        needs: &[GPA, Need::Sample],
        run: gpa_addresses,
    },
    Check {
        name: "memory.slots",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_MAX_MEM_SLOTS"),
        rule: "the reply is the maximum number of memory slots: one at least",
        needs: &[SLOTS],
        run: slots,
    },
    Check {
        name: "memory.add-region",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_ADD_MEM_REG"),
        rule: "the message describes a region of guest memory which the back-end device must map \
               in: rings and buffers in regions that were added one by one",
        needs: &[SLOTS, Need::Sample],
        run: add_region,
    },
    Check {
        name: "memory.all-slots",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_MAX_MEM_SLOTS"),
        rule: "as many regions can be added as GET_MAX_MEM_SLOTS returned (32 are tried)",
        needs: &[SLOTS],
        run: all_slots,
    },
    Check {
        name: "memory.add-without-file",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_ADD_MEM_REG"),
        rule: "exactly one file descriptor from which the memory is mapped is passed: a message \
               without one is refused",
        needs: &[SLOTS, ACK],
        run: add_without_file,
    },
    Check {
        name: "memory.removed-is-not-accessed",
        level: Level::Must,
        source: REMOVE,
        rule: "the message describes a region of guest memory which the back-end device must \
               unmap: a buffer there is not written any more",
        needs: &[SLOTS, Need::Sample],
        run: removed_not_accessed,
    },
    Check {
        name: "memory.remove-ignores-offset",
        level: Level::Must,
        source: REMOVE,
        rule: "the memory region to be removed is identified by its guest address, user address \
               and size; the mmap offset is ignored",
        needs: &[SLOTS, ACK],
        run: remove_ignores_offset,
    },
    Check {
        name: "memory.remove-closes-a-file",
        level: Level::Must,
        source: REMOVE,
        rule: "if a file descriptor is passed, the back-end MUST close it without using it \
               otherwise",
        needs: &[SLOTS],
        run: remove_closes_file,
    },
    Check {
        name: "memory.remove-unknown",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK"),
        rule: "the payload should be set to non-zero on failure: the removal of a region that \
               there is not",
        needs: &[SLOTS, ACK],
        run: remove_unknown,
    },
    Check {
        name: "memory.regions-under-load",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_ADD_MEM_REG"),
        rule: "ADD_MEM_REG and REM_MEM_REG set and update the memory tables of the back-end \
               device, also while it processes requests in other regions",
        needs: &[SLOTS, Need::Sample],
        run: regions_under_load,
    },
];

const HALF: u64 = 1 << 19;
/// Above what a 32-bit number has.
const HIGH: u64 = 1 << 32;

/// Runs some requests whose buffers are in the second region.
fn run_in_second(bench: &Bench, session: &mut Session) -> Verdict {
    bench.run_sample(session)?;
    session.memory().take_from(1);
    for _ in 0..4 {
        bench.run_sample(session)?;
    }
    Ok(())
}

fn two_regions(bench: &Bench) -> Verdict {
    let layouts = [Layout::new(0, HALF), Layout::new(HIGH, HALF)];
    let mut session = bench.start(&bench.setup().memory(&layouts))?;
    run_in_second(bench, &mut session)
}

fn mmap_offset(bench: &Bench) -> Verdict {
    let layouts = [
        Layout::new(0, HALF).offset(5 * PAGE),
        Layout::new(HIGH, HALF).offset(1 << 21),
    ];
    let mut session = bench.start(&bench.setup().memory(&layouts))?;
    run_in_second(bench, &mut session)
}

fn crossed_addresses(bench: &Bench) -> Verdict {
    let crossed = |addr, user| Layout {
        user,
        ..Layout::new(addr, HALF)
    };
    let layouts = [crossed(0, HIGH), crossed(HIGH, 0)];
    let mut session = bench.start(&bench.setup().memory(&layouts))?;
    run_in_second(bench, &mut session)
}

fn table_replaced(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    let memory = Rc::clone(session.memory());
    let more = Memory::new(&[Layout::new(HIGH, HALF)])?;
    let table = [memory.table(), more.table()].concat();
    let (regions, files) = table.into_iter().unzip();
    let table = vhost_user_wire::frontend::SetMemTable { regions, files };
    session.frontend().execute(&table)?;
    session.queues().iter().for_each(|queue| queue.kick());
    for _ in 0..4 {
        bench.run_sample(&mut session)?;
    }
    Ok(())
}

fn unknown_buffer(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    for addr in [1 << 20, 1 << 40, u64::MAX - 8] {
        let chain = crate::driver::Chain::new([
            crate::driver::Element::readable(addr, 16),
            crate::driver::Element::writable(addr, 64),
        ]);
        session.queue_mut(bench.sample().queue).submit(&chain)?;
    }
    let queue = session.queue_mut(bench.sample().queue);
    _ = queue.wait_used_within(QUIET);
    demand(session.frontend().is_there_or_gone(), || "it hangs".into())?;
    super::ring::no_stray(&session)
}

fn gpa_addresses(bench: &Bench) -> Verdict {
    let layouts = [Layout {
        user: 0,
        ..Layout::new(0, 1 << 20)
    }];
    let setup = bench
        .setup()
        .memory(&layouts)
        .require_protocol(Protocol::GPA_ADDRESSES);
    let mut session = bench.start(&setup)?;
    for _ in 0..4 {
        bench.run_sample(&mut session)?;
    }
    Ok(())
}

fn slotted(bench: &Bench) -> Setup {
    bench
        .setup()
        .require_protocol(Protocol::CONFIGURE_MEM_SLOTS)
}

fn max_slots(session: &mut Session) -> Result<u64, Fault> {
    Ok(session.frontend().request(&GetMaxMemSlots)?)
}

fn slots(bench: &Bench) -> Verdict {
    let mut session = slotted(bench).prepare(bench.connect()?)?;
    let slots = max_slots(&mut session)?;
    demand(slots > 0, || "it is 0".into())
}

/// A session whose memory has as many regions, if the backend takes them.
fn with_regions(bench: &Bench, layouts: &[Layout]) -> Result<Session, Fault> {
    let mut probe = slotted(bench).prepare(bench.connect()?)?;
    let slots = max_slots(&mut probe)?;
    drop(probe);
    if slots < layouts.len() as u64 {
        return Err(Fault::skip(format!("the backend has {slots} memory slots")));
    }
    Ok(bench.start(&slotted(bench).memory(layouts))?)
}

fn add_region(bench: &Bench) -> Verdict {
    let layouts = [Layout::new(0, HALF), Layout::new(HIGH, HALF).offset(PAGE)];
    let mut session = with_regions(bench, &layouts)?;
    run_in_second(bench, &mut session)
}

fn all_slots(bench: &Bench) -> Verdict {
    let mut session = slotted(bench).prepare(bench.connect()?)?;
    let slots = max_slots(&mut session)?.min(32);
    let layouts: Vec<_> = (0..slots).map(|n| Layout::new(n << 24, PAGE)).collect();
    let memory = Memory::new(&layouts)?;
    for index in 0..layouts.len() {
        session.add_region(&memory, index)?;
    }
    Ok(())
}

fn single(region: VhostUserMemoryRegion) -> VhostUserSingleMemoryRegion {
    let VhostUserMemoryRegion {
        guest_phys_addr,
        memory_size,
        user_addr,
        mmap_offset,
    } = region;
    VhostUserSingleMemoryRegion::new(guest_phys_addr, memory_size, user_addr, mmap_offset)
}

fn add_without_file(bench: &Bench) -> Verdict {
    let setup = slotted(bench).require_protocol(Protocol::REPLY_ACK);
    let mut session = setup.prepare(bench.connect()?)?;
    let (region, _) = session.memory().table()[0];
    let payload = single(region).to_bytes();
    let code = AddMemoryRegion::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}

fn remove(session: &mut Session, region: VhostUserMemoryRegion) -> Result<(), DriverError> {
    session
        .frontend()
        .execute(&RemoveMemoryRegion(single(region)))
}

fn removed_not_accessed(bench: &Bench) -> Verdict {
    let sample = bench.sample();
    if sample.writable == 0 {
        return Err(Fault::skip(
            "the known request has nothing for the device to write",
        ));
    }
    let layouts = [Layout::new(0, HALF), Layout::new(HIGH, HALF)];
    let mut session = with_regions(bench, &layouts)?;
    bench.run_sample(&mut session)?;
    let memory = Rc::clone(session.memory());
    memory.take_from(1);
    let buffers = Buffers::place(&memory, &sample.readable, sample.writable)?;
    remove(&mut session, memory.table()[1].0)?;
    buffers.refill(&memory, 0xa5)?;
    session.queue_mut(sample.queue).submit(buffers.chain())?;
    _ = session.queue_mut(sample.queue).wait_used_within(QUIET);
    let found = buffers.finish(&memory)?;
    demand(found.iter().all(|byte| *byte == 0xa5), || {
        "a buffer in the removed region was written".into()
    })?;
    demand(session.frontend().is_there_or_gone(), || "it hangs".into())
}

/// A session with one region more, which is not used.
fn with_spare(bench: &Bench) -> Result<(Session, VhostUserMemoryRegion), Fault> {
    let layouts = [Layout::new(0, HALF), Layout::new(HIGH, HALF).offset(PAGE)];
    let session = with_regions(bench, &layouts)?;
    let spare = session.memory().table()[1].0;
    Ok((session, spare))
}

fn remove_ignores_offset(bench: &Bench) -> Verdict {
    let (mut session, mut spare) = with_spare(bench)?;
    spare.mmap_offset = 0;
    remove(&mut session, spare)?;
    Ok(())
}

fn remove_closes_file(bench: &Bench) -> Verdict {
    let (mut session, spare) = with_spare(bench)?;
    let (reader, writer) = std::io::pipe().map_err(DriverError::from)?;
    let payload = single(spare).to_bytes();
    let header = vhost_user_wire::Header::request(RemoveMemoryRegion::CODE, payload.len());
    session
        .frontend()
        .send_message(header, &payload, &[writer.as_fd()])?;
    drop(writer);
    session.frontend().is_served();
    demand(all_writers_gone(&reader), || {
        "the file is still open in the backend".into()
    })
}

fn remove_unknown(bench: &Bench) -> Verdict {
    let (mut session, mut spare) = with_spare(bench)?;
    spare.guest_phys_addr += HIGH;
    spare.user_addr += HIGH;
    let payload = single(spare).to_bytes();
    let code = RemoveMemoryRegion::CODE.into();
    let answer: Answer = session.frontend().try_message(code, &payload, &[])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}

fn regions_under_load(bench: &Bench) -> Verdict {
    let (mut session, spare) = with_spare(bench)?;
    let memory = Rc::clone(session.memory());
    let sample = bench.sample();
    let buffers = [bench.place(&session)?, bench.place(&session)?];
    for _ in 0..30 {
        for buffers in &buffers {
            session.queue_mut(sample.queue).submit(buffers.chain())?;
        }
        remove(&mut session, spare)?;
        session.add_region(&memory, 1)?;
        for _ in &buffers {
            session.queue_mut(sample.queue).wait_used()?;
        }
    }
    bench.run_sample(&mut session)?;
    Ok(())
}
