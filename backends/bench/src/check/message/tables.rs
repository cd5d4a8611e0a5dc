//! Memory tables that are not what they say.

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::Payload;
use vhost_user_wire::frontend::{FrontendMessage, SetMemTable};
use vhost_user_wire::payload::MemoryTable;

use super::steps::{acknowledged, refused};
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::Answer;

const ACK: Need = Need::Protocol(Protocol::REPLY_ACK);

pub const CHECKS: &[Check] = &[
    Check {
        name: "message.memory-table-of-full-size",
        level: Level::Should,
        source: Source::VhostUser("Multiple Memory regions description"),
        rule: "the regions field contains 8 regions, of which the first num regions count: a \
               table of full size with one region is accepted",
        needs: &[ACK],
        run: full_size_table,
    },
    Check {
        name: "message.memory-table-without-file",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_MEM_TABLE"),
        rule: "the size and ordering of the fds matches the number and ordering of memory \
               regions: a table whose files are missing is refused",
        needs: &[ACK],
        run: table_without_file,
    },
    Check {
        name: "message.memory-table-one-file-short",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_MEM_TABLE"),
        rule: "the size and ordering of the fds matches the number and ordering of memory \
               regions: two regions with one file are refused",
        needs: &[ACK],
        run: table_one_file_short,
    },
    Check {
        name: "message.memory-table-overlong-count",
        level: Level::Should,
        source: Source::VhostUser("Multiple Memory regions description"),
        rule: "a table that announces 2^32 - 1 regions and has one is refused",
        needs: &[ACK],
        run: table_overlong_count,
    },
];

/// Bytes of a table with all its 8 regions.
const FULL_TABLE: usize = 8 + 8 * size_of::<VhostUserMemoryRegion>();

fn full_size_table(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let memory = std::rc::Rc::clone(session.memory());
    let (region, file) = memory.table()[0];
    let mut payload = MemoryTable(vec![region]).to_bytes();
    payload.resize(FULL_TABLE, 0);
    let code = SetMemTable::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[file])?;
    demand(answer == Answer::Acked(0), || {
        format!("SET_MEM_TABLE of {FULL_TABLE} bytes with one region: {answer:?}")
    })
}

fn table_without_file(bench: &Bench) -> Verdict {
    let memory = std::rc::Rc::clone(acknowledged(bench)?.memory());
    let (region, _) = memory.table()[0];
    let payload = MemoryTable(vec![region]).to_bytes();
    refused(bench, SetMemTable::CODE.into(), &payload)
}

fn table_one_file_short(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let memory = std::rc::Rc::clone(session.memory());
    let (region, file) = memory.table()[0];
    let mut second = region;
    second.guest_phys_addr += region.memory_size;
    second.user_addr += region.memory_size;
    let payload = MemoryTable(vec![region, second]).to_bytes();
    let code = SetMemTable::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[file])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}

fn table_overlong_count(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let memory = std::rc::Rc::clone(session.memory());
    let (region, file) = memory.table()[0];
    let mut payload = MemoryTable(vec![region]).to_bytes();
    payload[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    let code = SetMemTable::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[file])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}
