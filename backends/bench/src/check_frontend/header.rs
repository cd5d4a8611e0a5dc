//! Headers, payloads and files of messages.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vhost_user_wire::payload::{Config, MemoryTable, VringFile};
use vhost_user_wire::{NEED_REPLY, VERSION, name};

use super::types::{FrontendCheck, Method, all};
use crate::backend::{History, Seen};
use crate::check::{Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "header.version",
        level: Level::Must,
        source: Source::VhostUser("Header"),
        rule: "the lower 2 bits of flags are the version, 1",
        method: Method::Look(version),
    },
    FrontendCheck {
        name: "header.no-reply-flag",
        level: Level::Must,
        source: Source::VhostUser("Header"),
        rule: "bit 2 of flags is the reply flag: it is on replies from the back-end, and not on \
               requests",
        method: Method::Look(no_reply_flag),
    },
    FrontendCheck {
        name: "header.reserved-flags",
        level: Level::Should,
        source: Source::VhostUser("Header"),
        rule: "flags have no bits but the version, the reply flag and need_reply",
        method: Method::Look(reserved_flags),
    },
    FrontendCheck {
        name: "header.need-reply-when-negotiated",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK"),
        rule: "need_reply is set with this protocol extension negotiated, and not without",
        method: Method::Look(need_reply),
    },
    FrontendCheck {
        name: "header.known-requests",
        level: Level::Must,
        source: Source::VhostUser("Front-end message types"),
        rule: "requests are those of the document; any protocol extensions are gated by protocol \
               feature bits",
        method: Method::Look(known),
    },
    FrontendCheck {
        name: "header.size",
        level: Level::Must,
        source: Source::VhostUser("Payload"),
        rule: "the payload is that of the request type, no shorter and no longer",
        method: Method::Look(size),
    },
    FrontendCheck {
        name: "header.files",
        level: Level::Must,
        source: Source::VhostUser("Communication"),
        rule: "the messages with file descriptors are those of the list, each with as many as it \
               says; the first byte of the message comes with them",
        method: Method::Look(files),
    },
    FrontendCheck {
        name: "header.kinds-of-files",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_MEM_TABLE"),
        rule: "the files of memory regions and of the inflight buffer can be mapped",
        method: Method::Look(kinds),
    },
];

fn name_of(seen: &Seen) -> name::Name {
    name::frontend(seen.header.request)
}

fn version(history: &History) -> Verdict {
    all(history, |seen| {
        demand(seen.header.version() == VERSION, || {
            format!("{} has version {}", name_of(seen), seen.header.version())
        })
    })
}

fn no_reply_flag(history: &History) -> Verdict {
    all(history, |seen| {
        demand(!seen.header.is_reply(), || {
            format!("{} has the reply flag", name_of(seen))
        })
    })
}

fn reserved_flags(history: &History) -> Verdict {
    all(history, |seen| {
        demand(seen.header.flags & !0xf == 0, || {
            format!("{} has the flags {:#x}", name_of(seen), seen.header.flags)
        })
    })
}

fn need_reply(history: &History) -> Verdict {
    all(history, |seen| {
        let may = seen.before.has_protocol(Protocol::REPLY_ACK);
        // The message that negotiates it may be the first one with the flag.
        let negotiates = seen.is(FrontendReq::SET_PROTOCOL_FEATURES);
        let is_set = seen.header.flags & NEED_REPLY != 0;
        demand(!is_set || may || negotiates, || {
            format!("{} has need_reply without REPLY_ACK", name_of(seen))
        })
    })
}

fn known(history: &History) -> Verdict {
    all(history, |seen| {
        demand(matches!(name_of(seen), name::Name::Known(_)), || {
            name_of(seen).to_string()
        })
    })
}

const STATE: &[usize] = &[8];
const NUMBER: &[usize] = &[8];
const NOTHING: &[usize] = &[0];
/// With the padding of a C structure, and without.
const INFLIGHT: &[usize] = &[20, 24];

/// The sizes that a payload may have; `None` where it says so itself, or nothing is known.
fn sizes(request: FrontendReq) -> Option<&'static [usize]> {
    Some(match request {
        FrontendReq::SET_FEATURES
        | FrontendReq::SET_PROTOCOL_FEATURES
        | FrontendReq::SET_VRING_KICK
        | FrontendReq::SET_VRING_CALL
        | FrontendReq::SET_VRING_ERR
        | FrontendReq::SEND_RARP
        | FrontendReq::NET_SET_MTU
        | FrontendReq::SET_STATUS
        | FrontendReq::SET_DEVICE_STATE_FD => NUMBER,
        FrontendReq::SET_VRING_NUM
        | FrontendReq::SET_VRING_BASE
        | FrontendReq::GET_VRING_BASE
        | FrontendReq::SET_VRING_ENABLE
        | FrontendReq::SET_VRING_ENDIAN
        | FrontendReq::VRING_KICK => STATE,
        FrontendReq::SET_VRING_ADDR | FrontendReq::ADD_MEM_REG | FrontendReq::REM_MEM_REG => &[40],
        FrontendReq::GET_INFLIGHT_FD | FrontendReq::SET_INFLIGHT_FD => INFLIGHT,
        FrontendReq::SET_OWNER
        | FrontendReq::RESET_OWNER
        | FrontendReq::GET_FEATURES
        | FrontendReq::GET_PROTOCOL_FEATURES
        | FrontendReq::GET_QUEUE_NUM
        | FrontendReq::SET_BACKEND_REQ_FD
        | FrontendReq::RESET_DEVICE
        | FrontendReq::GET_STATUS
        | FrontendReq::GET_MAX_MEM_SLOTS
        | FrontendReq::CHECK_DEVICE_STATE
        | FrontendReq::GET_SHMEM_CONFIG => NOTHING,
        _ => return None,
    })
}

const REGION: usize = 32;
/// Regions of the payload at its full size.
const REGIONS: usize = 8;

fn is_fit(seen: &Seen) -> bool {
    let len = seen.payload.len();
    let Ok(request) = FrontendReq::try_from(seen.header.request) else {
        return true;
    };
    match request {
        FrontendReq::SET_MEM_TABLE => {
            let regions = seen.body::<MemoryTable>().map(|table| table.0.len());
            regions.is_some_and(|count| [count, REGIONS].map(|n| 8 + n * REGION).contains(&len))
        }
        FrontendReq::GET_CONFIG | FrontendReq::SET_CONFIG => {
            let size = seen.body::<Config>().map(|config| config.bytes.len());
            size.is_some_and(|size| len == 12 + size)
        }
        request => sizes(request).is_none_or(|sizes| sizes.contains(&len)),
    }
}

fn size(history: &History) -> Verdict {
    all(history, |seen| {
        demand(is_fit(seen), || {
            let len = seen.payload.len();
            format!("{} has a payload of {len} bytes", name_of(seen))
        })
    })
}

/// How many files belong to a message.
fn wanted(seen: &Seen) -> Option<usize> {
    let request = FrontendReq::try_from(seen.header.request).ok()?;
    Some(match request {
        FrontendReq::SET_MEM_TABLE => seen.body::<MemoryTable>()?.0.len(),
        FrontendReq::SET_VRING_KICK | FrontendReq::SET_VRING_CALL | FrontendReq::SET_VRING_ERR => {
            seen.body::<VringFile>()?.has_file.into()
        }
        FrontendReq::SET_LOG_BASE => seen.before.has_protocol(Protocol::LOG_SHMFD).into(),
        FrontendReq::ADD_MEM_REG
        | FrontendReq::SET_LOG_FD
        | FrontendReq::SET_BACKEND_REQ_FD
        | FrontendReq::SET_INFLIGHT_FD
        | FrontendReq::GPU_SET_SOCKET
        | FrontendReq::SET_DEVICE_STATE_FD => 1,
        // Another check has this one: the document only recommends it.
        FrontendReq::REM_MEM_REG => return None,
        _ => 0,
    })
}

fn files(history: &History) -> Verdict {
    all(history, |seen| {
        let Some(wanted) = wanted(seen) else {
            return Ok(());
        };
        let got = seen.files.len();
        demand(got == wanted, || {
            format!("{} has {got} files, and not {wanted}", name_of(seen))
        })
    })
}

fn kinds(history: &History) -> Verdict {
    let requests = [
        FrontendReq::SET_MEM_TABLE,
        FrontendReq::ADD_MEM_REG,
        FrontendReq::SET_INFLIGHT_FD,
    ];
    super::types::each(history, &requests, |seen| {
        demand(seen.files.iter().all(|file| file.is_regular), || {
            format!("{} has a file that has no pages", name_of(seen))
        })
    })
}
