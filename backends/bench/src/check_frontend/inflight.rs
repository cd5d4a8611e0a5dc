//! The record of requests in flight, of which the frontend is the keeper.

use vhost::vhost_user::message::{FrontendReq, VhostUserInflight};
use vhost_user_wire::Payload;

use super::types::{FrontendCheck, Method, each};
use crate::backend::History;
use crate::check::{Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "inflight.given-back",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_INFLIGHT_FD"),
        rule: "the front-end sends the shared inflight buffer back to the back-end: the file and \
               the description that GET_INFLIGHT_FD returned",
        method: Method::Look(given_back),
    },
    FrontendCheck {
        name: "inflight.before-start",
        level: Level::Should,
        source: Source::VhostUser("Inflight I/O tracking"),
        rule: "the back-end needs the buffer to resubmit what is in flight: SET_INFLIGHT_FD comes \
               before rings are started",
        method: Method::Look(before_start),
    },
    FrontendCheck {
        name: "inflight.covers-the-queues",
        level: Level::Should,
        source: Source::VhostUser("Inflight description"),
        rule: "the buffer is for as many queues as are used, of their size",
        method: Method::Look(covers),
    },
    FrontendCheck {
        name: "inflight.set-after-get",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_INFLIGHT_FD"),
        rule: "a buffer that was asked for is sent before the first ring is started",
        method: Method::Look(set_after_get),
    },
];

const SET: &[FrontendReq] = &[FrontendReq::SET_INFLIGHT_FD];

fn same(one: &[u8], other: &[u8]) -> bool {
    let both = [one, other].map(|bytes| VhostUserInflight::decode(bytes).ok());
    let [Some(one), Some(other)] = both else {
        return false;
    };
    let fields =
        |it: VhostUserInflight| (it.mmap_size, it.mmap_offset, it.num_queues, it.queue_size);
    fields(one) == fields(other)
}

fn given_back(history: &History) -> Verdict {
    each(history, SET, |seen| {
        let file = seen.files.first().map(|file| file.identity);
        let is_known = history.inflight().iter().any(|(payload, given)| {
            same(payload, &seen.payload) && given.map(|given| given.identity) == file
        });
        demand(is_known, || {
            "SET_INFLIGHT_FD has another description or file than GET_INFLIGHT_FD returned".into()
        })
    })
}

fn before_start(history: &History) -> Verdict {
    each(history, SET, |seen| {
        demand(!seen.before.is_running(), || {
            "SET_INFLIGHT_FD while a ring is started".into()
        })
    })
}

fn covers(history: &History) -> Verdict {
    let mut last: Option<VhostUserInflight> = None;
    each(history, SET, |_| Ok(()))?;
    for seen in history.seen() {
        if seen.is_one_of(SET) {
            last = seen.body();
        }
        let Some(record) = last.filter(|_| seen.is(FrontendReq::SET_VRING_KICK)) else {
            continue;
        };
        let index = seen.payload.first().copied().unwrap_or(0);
        let ring = seen.before.rings.get(&index.into());
        let size = ring.and_then(|ring| ring.size).unwrap_or(0);
        let (queues, queue_size) = (record.num_queues, record.queue_size);
        demand(
            u16::from(index) < queues && size <= queue_size.into(),
            || {
                format!(
                    "ring {index} has {size} entries, and the buffer is for {queues} queues of \
                 {queue_size}"
                )
            },
        )?;
    }
    Ok(())
}

fn set_after_get(history: &History) -> Verdict {
    each(history, &[FrontendReq::GET_INFLIGHT_FD], |get| {
        let on_it = history.seen().iter();
        let later = on_it
            .filter(|seen| seen.connection == get.connection)
            .skip_while(|seen| !seen.is(FrontendReq::GET_INFLIGHT_FD));
        let wanted = [FrontendReq::SET_INFLIGHT_FD, FrontendReq::SET_VRING_KICK];
        let mut wanted = later.filter(|seen| seen.is_one_of(&wanted));
        let next = wanted.next();
        let is_set = next.is_none_or(|seen| seen.is(FrontendReq::SET_INFLIGHT_FD));
        demand(is_set, || {
            "GET_INFLIGHT_FD, and a ring is started without SET_INFLIGHT_FD".into()
        })
    })
}
