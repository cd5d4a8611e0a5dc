//! File systems (virtio 1.4, section 5.11), and as much of FUSE as a session needs.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{Answer, configured, exchange, number, started, words};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, QUIET, Session};

const FS: Need = Need::Type(DeviceType::FS);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const LAYOUT: Source = Source::Virtio("5.11.4 Device configuration layout");
const REQUESTS: Source = Source::Virtio("5.11.6.1 Device Operation: Request Queues");

pub const CHECKS: &[Check] = &[
    Check {
        name: "fs.tag",
        level: Level::Should,
        source: LAYOUT,
        rule: "the tag is encoded in UTF-8 and padded with NUL bytes if shorter than the \
               available space",
        needs: &[FS, CONFIG],
        run: tag,
    },
    Check {
        name: "fs.request-queues",
        level: Level::Must,
        source: Source::Virtio("5.11.4.2 Device Requirements: Device configuration layout"),
        rule: "the device MUST set num_request_queues to 1 or greater",
        needs: &[FS, CONFIG],
        run: request_queues,
    },
    Check {
        name: "fs.init",
        level: Level::Should,
        source: Source::Virtio("5.11.5 Device Initialization"),
        rule: "the FUSE session is started by sending a FUSE_INIT request on one request \
               virtqueue: version 7 is answered by version 7",
        needs: &[FS],
        run: init,
    },
    Check {
        name: "fs.answer-header",
        level: Level::Should,
        source: REQUESTS,
        rule: "the device-writable part is struct fuse_out_header and data: len is that of both, \
               and unique that of the request",
        needs: &[FS],
        run: answer_header,
    },
    Check {
        name: "fs.unknown-request",
        level: Level::Should,
        source: REQUESTS,
        rule: "the FUSE protocol specifies the set of request types: another one is answered by \
               ENOSYS",
        needs: &[FS],
        run: unknown_request,
    },
    Check {
        name: "fs.missing-name",
        level: Level::Should,
        source: REQUESTS,
        rule: "FUSE_LOOKUP of a name that there is not is answered by ENOENT, or by a node of 0",
        needs: &[FS],
        run: missing_name,
    },
    Check {
        name: "fs.name-with-slash",
        level: Level::Should,
        source: Source::Virtio("5.11.6.5 Security Considerations"),
        rule: "the device provides access to a file system: FUSE_LOOKUP of ../../etc fails",
        needs: &[FS],
        run: |bench| lookup_fails(bench, b"../../etc"),
    },
    Check {
        name: "fs.bad-node",
        level: Level::Should,
        source: REQUESTS,
        rule: "FUSE_GETATTR of a node that the device has given to nobody is answered by an error",
        needs: &[FS],
        run: bad_node,
    },
    Check {
        name: "fs.short-header",
        level: Level::Should,
        source: REQUESTS,
        rule: "the device-readable part begins with struct fuse_in_header: a request with 8 bytes \
               harms nobody, and the device serves on",
        needs: &[FS, Need::Reconnects],
        run: short_header,
    },
    Check {
        name: "fs.overlong-length",
        level: Level::Should,
        source: REQUESTS,
        rule: "len is the length of the request: one that says 2^32 - 1 harms nobody, and the \
               device serves on",
        needs: &[FS, Need::Reconnects],
        run: overlong_length,
    },
    Check {
        name: "fs.forget-on-hiprio",
        level: Level::Should,
        source: Source::Virtio("5.11.6.2 Device Operation: High Priority Queue"),
        rule: "FUSE_FORGET is made available on the hiprio queue, and is used though nothing \
               answers it",
        needs: &[FS],
        run: forget,
    },
];

const HIPRIO: usize = 0;
const REQUEST: usize = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;

const ROOT: u64 = 1;
/// What requests are told apart by.
const UNIQUE: u64 = 0x1234_5678_9abc;

const HEADER: u32 = 40;
const OUT_HEADER: usize = 16;

/// struct fuse_in_header and what follows it.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[HEADER + body.len() as u32, opcode]);
    bytes.extend(UNIQUE.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    // User, group, process, and what is reserved.
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

/// FUSE_INIT of version 7.31 without flags, whose body has had 64 bytes since 7.36 and 16 before.
fn init_request() -> Vec<u8> {
    request(INIT, 0, &words(&[7, 31, 0, 0]))
}

fn ask(session: &mut Session, request: &[u8]) -> Result<Answer, Fault> {
    exchange(session, REQUEST, request, 256)
}

fn error(answer: &Answer) -> i32 {
    answer.u32(4).cast_signed()
}

/// A session that FUSE_INIT has been answered on.
fn initialized(bench: &Bench) -> Result<Session, Fault> {
    let mut session = started(bench)?;
    let answer = ask(&mut session, &init_request())?;
    demand(error(&answer) == 0, || {
        format!("FUSE_INIT was answered by error {}", error(&answer))
    })?;
    Ok(session)
}

fn tag(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 40)?;
    let tag = &config.bytes()[..36];
    let end = tag.iter().position(|byte| *byte == 0).unwrap_or(tag.len());
    let (text, padding) = tag.split_at(end);
    let is_good = std::str::from_utf8(text).is_ok() && padding.iter().all(|byte| *byte == 0);
    demand(is_good && !text.is_empty(), || {
        format!("the tag is {tag:02x?}")
    })
}

fn request_queues(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 40)?;
    demand(config.number::<4>(36) > 0, || {
        "num_request_queues is 0".into()
    })
}

fn init(bench: &Bench) -> Verdict {
    let answer = ask(&mut started(bench)?, &init_request())?;
    demand(error(&answer) == 0, || {
        format!("FUSE_INIT was answered by error {}", error(&answer))
    })?;
    let major = answer.u32(OUT_HEADER);
    demand(major == 7, || format!("the major version is {major}"))
}

fn answer_header(bench: &Bench) -> Verdict {
    let mut session = initialized(bench)?;
    // struct fuse_getattr_in: no flags, no file.
    let answer = ask(&mut session, &request(GETATTR, ROOT, &[0; 16]))?;
    let (len, unique) = (answer.u32(0), number::<8>(&answer.bytes, 8));
    demand(error(&answer) == 0, || {
        format!("FUSE_GETATTR of the root: error {}", error(&answer))
    })?;
    demand(unique == UNIQUE, || {
        format!("unique is {unique:#x}, and that of the request is {UNIQUE:#x}")
    })?;
    demand(len == answer.len, || {
        format!("len is {len}, and the used length is {}", answer.len)
    })
}

fn unknown_request(bench: &Bench) -> Verdict {
    let mut session = initialized(bench)?;
    let answer = ask(&mut session, &request(0x7ff0, ROOT, &[]))?;
    demand(error(&answer) == -libc::ENOSYS, || {
        format!(
            "the error is {}, and ENOSYS is -{}",
            error(&answer),
            libc::ENOSYS
        )
    })
}

/// A name that nobody gives to a file.
const MISSING: &[u8] = b"outboard-check: there is no such file";

fn lookup(session: &mut Session, name: &[u8]) -> Result<Answer, Fault> {
    ask(session, &request(LOOKUP, ROOT, &[name, b"\0"].concat()))
}

fn missing_name(bench: &Bench) -> Verdict {
    let answer = lookup(&mut initialized(bench)?, MISSING)?;
    let is_missing = match error(&answer) {
        0 => number::<8>(&answer.bytes, OUT_HEADER) == 0,
        error => error == -libc::ENOENT,
    };
    demand(is_missing, || format!("the error is {}", error(&answer)))
}

fn lookup_fails(bench: &Bench, name: &[u8]) -> Verdict {
    let answer = lookup(&mut initialized(bench)?, name)?;
    demand(error(&answer) < 0, || {
        format!("the error is {}", error(&answer))
    })
}

fn bad_node(bench: &Bench) -> Verdict {
    let mut session = initialized(bench)?;
    let answer = ask(&mut session, &request(GETATTR, 0x7fff_ffff_fff0, &[0; 16]))?;
    demand(error(&answer) < 0, || {
        format!("the error is {}", error(&answer))
    })
}

/// What is no request may be left alone, or end the connection; the next session is served.
fn harms_nobody(bench: &Bench, bytes: &[u8]) -> Verdict {
    let mut session = initialized(bench)?;
    let buffers = Buffers::place(session.memory(), bytes, 256)?;
    session.queue_mut(REQUEST).submit(buffers.chain())?;
    session.queue(REQUEST).is_notified_within(QUIET)?;
    // A backend that is still there has seen the kick by the time it answers.
    session.frontend().is_served();
    drop(session);
    initialized(bench)?;
    Ok(())
}

fn short_header(bench: &Bench) -> Verdict {
    harms_nobody(bench, &request(LOOKUP, ROOT, &[])[..8])
}

fn overlong_length(bench: &Bench) -> Verdict {
    let mut bytes = request(LOOKUP, ROOT, b"x\0");
    bytes[..4].fill(0xff);
    harms_nobody(bench, &bytes)
}

fn forget(bench: &Bench) -> Verdict {
    let mut session = initialized(bench)?;
    // No lookup of a node that there is not.
    let bytes = request(FORGET, 0x7fff_ffff_fff0, &[0; 8]);
    exchange(&mut session, HIPRIO, &bytes, 0)?;
    Ok(())
}
