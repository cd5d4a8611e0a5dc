//! Messages as bytes: what a frontend may send, and what none should.

use std::io::PipeReader;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserVringState};
use vhost_user_wire::frontend::{
    FrontendMessage, GetFeatures, SetFeatures, SetMemTable, SetVringAddr, SetVringEnable,
    SetVringKick, SetVringNum,
};
use vhost_user_wire::payload::MemoryTable;
use vhost_user_wire::{Header, Payload};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Answer, DEADLINE, DriverError, Session, Step, wait_readable};

const ACK: Need = Need::Protocol(Protocol::REPLY_ACK);
const REPLY_ACK: Source = Source::VhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK");
const COMMUNICATION: Source = Source::VhostUser("Communication");

pub const CHECKS: &[Check] = &[
    Check {
        name: "message.unknown-is-answered",
        level: Level::Must,
        source: REPLY_ACK,
        rule: "the sender can set need_reply to any command, and the back-end MUST respond: also \
               to a request that it does not know (or it hangs up)",
        needs: &[ACK],
        run: unknown_is_answered,
    },
    Check {
        name: "message.unknown-is-refused",
        level: Level::Should,
        source: REPLY_ACK,
        rule: "the payload should be set to non-zero on failure: a request that the back-end does \
               not know did not succeed",
        needs: &[ACK],
        run: |bench| refused(bench, UNKNOWN, &[0; 8]),
    },
    Check {
        name: "message.unknown-keeps-the-connection",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "closing the connection should only happen in exceptional circumstances: not for a \
               request of a newer document",
        needs: &[ACK],
        run: unknown_keeps_connection,
    },
    Check {
        name: "message.truncated-is-answered",
        level: Level::Must,
        source: REPLY_ACK,
        rule: "the back-end MUST respond to a message with need_reply: also to SET_FEATURES whose \
               payload has 4 bytes (or it hangs up)",
        needs: &[ACK],
        run: truncated_is_answered,
    },
    Check {
        name: "message.truncated-is-refused",
        level: Level::Should,
        source: REPLY_ACK,
        rule: "the payload should be set to non-zero on failure: SET_VRING_ADDR of 8 bytes, which \
               has no address in it",
        needs: &[ACK],
        run: truncated_is_refused,
    },
    Check {
        name: "message.empty-is-refused",
        level: Level::Should,
        source: REPLY_ACK,
        rule: "the payload should be set to non-zero on failure: SET_VRING_NUM without a payload",
        needs: &[ACK],
        run: empty_is_refused,
    },
    Check {
        name: "message.wrong-version-is-refused",
        level: Level::Should,
        source: Source::VhostUser("Header"),
        rule: "the lower 2 bits of the flags are the version (currently 0x01): another is refused",
        needs: &[ACK],
        run: wrong_version,
    },
    Check {
        name: "message.oversized-does-no-harm",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "a back-end that detects some error may close the connection: it ends in order, and \
               serves the next one, after a header that announces 2 GiB",
        needs: &[Need::Reconnects],
        run: oversized,
    },
    Check {
        name: "message.end-inside-a-message",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "if the front-end is unable to send the full message it will close the connection: \
               the next one is served",
        needs: &[Need::Reconnects],
        run: end_inside,
    },
    Check {
        name: "message.in-pieces",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "the protocol is a stream of bytes, and a message may come in pieces: the back-end \
               can only expect that files come with its first",
        needs: &[],
        run: in_pieces,
    },
    Check {
        name: "message.many-at-once",
        level: Level::Must,
        source: COMMUNICATION,
        rule: "most of the requests don't require replies: several that come at once are all \
               processed",
        needs: &[],
        run: many_at_once,
    },
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
    Check {
        name: "message.kick-without-file",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_KICK"),
        rule: "bit 8 is set when there is no file descriptor: a message without either is refused",
        needs: &[ACK],
        run: kick_without_file,
    },
    Check {
        name: "message.stray-files-are-closed",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "files come with the messages of the list; one that comes with SET_FEATURES is not \
               kept open",
        needs: &[],
        run: stray_files_closed,
    },
    Check {
        name: "message.many-files",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "a back-end that detects some error may close the connection: 100 files with one \
               message do no more harm",
        needs: &[Need::Reconnects],
        run: many_files,
    },
];

fn acknowledged(bench: &Bench) -> Result<Session, Fault> {
    let setup = bench.setup().require_protocol(Protocol::REPLY_ACK);
    Ok(setup.prepare(bench.connect()?)?)
}

/// A request that nobody has defined.
const UNKNOWN: u32 = 0x7ff0;

fn unknown_is_answered(bench: &Bench) -> Verdict {
    answered(bench, UNKNOWN, &[0; 8])
}

fn unknown_keeps_connection(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    session.frontend().try_message(UNKNOWN, &[0; 8], &[])?;
    demand(session.frontend().is_served(), || {
        "the backend hung up".into()
    })
}

fn truncated_is_answered(bench: &Bench) -> Verdict {
    answered(bench, SetFeatures::CODE.into(), &[0; 4])
}

/// A message with need_reply is answered in any way, or the backend hangs up.
fn answered(bench: &Bench, code: u32, payload: &[u8]) -> Verdict {
    let mut session = acknowledged(bench)?;
    let answer = session.frontend().try_message(code, payload, &[])?;
    demand(answer != Answer::Silent, || {
        "there is no answer, and the connection is open".into()
    })
}

fn refused(bench: &Bench, code: u32, payload: &[u8]) -> Verdict {
    let mut session = acknowledged(bench)?;
    let answer = session.frontend().try_message(code, payload, &[])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}

fn truncated_is_refused(bench: &Bench) -> Verdict {
    refused(bench, SetVringAddr::CODE.into(), &[0; 8])
}

fn empty_is_refused(bench: &Bench) -> Verdict {
    refused(bench, SetVringNum::CODE.into(), &[])
}

fn wrong_version(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let frontend = session.frontend();
    let payload = VhostUserVringState::new(0, 64).to_bytes();
    let mut header = Header::request(SetVringNum::CODE, payload.len()).with_ack();
    header.flags = header.flags & !3 | 2;
    frontend.send_message(header, &payload, &[])?;
    let answer = frontend.answer()?;
    demand(answer.is_refusal(), || {
        format!("a message of version 2: {answer:?}")
    })
}

/// A new connection is served, in time for somebody who has just been refused another.
fn next_is_served(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    frontend.request(&GetFeatures)?;
    Ok(())
}

fn oversized(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    let header = Header {
        size: i32::MAX as u32,
        ..Header::request(SetFeatures::CODE, 0)
    };
    frontend.send_message(header, &[0; 64], &[])?;
    // It may have hung up already, or wait for the rest.
    drop(frontend);
    next_is_served(bench)
}

fn end_inside(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    let header = Header::request(SetFeatures::CODE, 8);
    frontend.send_message(header, &[0; 3], &[])?;
    drop(frontend);
    let mut frontend = bench.connect()?;
    frontend.send_bytes(&header.to_bytes()[..5], &[])?;
    drop(frontend);
    next_is_served(bench)
}

/// How long a piece of a message stays the last.
const PIECE: Duration = Duration::from_millis(2);

fn in_pieces(bench: &Bench) -> Verdict {
    let mut session = bench.setup().prepare(bench.connect()?)?;
    let features = session.negotiated().features;
    let header = Header::request(SetFeatures::CODE, 8);
    let bytes = [&header.to_bytes()[..], &features.to_ne_bytes()].concat();
    let frontend = session.frontend();
    let header = Header::request(GetFeatures::CODE, 0).to_bytes();
    for piece in bytes.chunks(3).chain(header.chunks(1)) {
        frontend.send_bytes(piece, &[])?;
        // The other side gets to read each by itself, and to hang up over it.
        wait_readable(frontend.stream(), PIECE).map_err(DriverError::from)?;
    }
    frontend.reply_to(GetFeatures::CODE.into())?;
    Ok(())
}

fn many_at_once(bench: &Bench) -> Verdict {
    let mut session = bench.setup().prepare(bench.connect()?)?;
    let frontend = session.frontend();
    let state = VhostUserVringState::new(0, 64).to_bytes();
    let mut bytes = Vec::new();
    for _ in 0..8 {
        bytes.extend(Header::request(SetVringNum::CODE, state.len()).to_bytes());
        bytes.extend(&state);
        bytes.extend(Header::request(GetFeatures::CODE, 0).to_bytes());
    }
    frontend.send_bytes(&bytes, &[])?;
    for _ in 0..8 {
        frontend.reply_to(GetFeatures::CODE.into())?;
    }
    Ok(())
}

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

fn kick_without_file(bench: &Bench) -> Verdict {
    refused(bench, SetVringKick::CODE.into(), &0u64.to_ne_bytes())
}

fn stray_files_closed(bench: &Bench) -> Verdict {
    let mut session = bench
        .setup()
        .leave_out(Step::Features)
        .prepare(bench.connect()?)?;
    let (reader, writer) = std::io::pipe().map_err(DriverError::from)?;
    let features = session.negotiated().features.to_ne_bytes();
    let header = Header::request(SetFeatures::CODE, features.len());
    session
        .frontend()
        .send_message(header, &features, &[writer.as_fd()])?;
    drop(writer);
    // Whoever refuses such a message has to close the file too.
    session.frontend().is_served();
    demand(all_writers_gone(&reader), || {
        "the file is still open in the backend".into()
    })
}

/// Whether the last write end of a pipe is closed, in time.
pub fn all_writers_gone(reader: &PipeReader) -> bool {
    let deadline = Timespec::try_from(DEADLINE).ok();
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    poll(&mut fds, deadline.as_ref()).is_ok_and(|ready| ready > 0)
}

fn many_files(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    let file = std::fs::File::open("/dev/null").map_err(DriverError::from)?;
    let files = vec![file.as_fd(); 100];
    let payload = VhostUserVringState::new(0, 1).to_bytes();
    let header = Header::request(SetVringEnable::CODE, payload.len());
    frontend.send_message(header, &payload, &files)?;
    drop(frontend);
    next_is_served(bench)
}
