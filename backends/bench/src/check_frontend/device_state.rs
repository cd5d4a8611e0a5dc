//! The device's state, which a frontend carries from one backend to another.

use vhost::vhost_user::message::FrontendReq;

use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, Seen, Trouble, direction_and_phase};
use crate::check::{Fault, Level, Source, Verdict, demand};

const MIGRATING: Source = Source::VhostUser("Migrating back-end state");
const SET_FD: Source = Source::VhostUser("VHOST_USER_SET_DEVICE_STATE_FD");

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "state.direction-and-phase",
        level: Level::Must,
        source: SET_FD,
        rule: "the direction is 0 (save) or 1 (load), and the phase 0 (stopped): others are not \
               defined",
        method: Method::Look(known),
    },
    FrontendCheck {
        name: "state.while-stopped",
        level: Level::Must,
        source: MIGRATING,
        rule: "in the phase stopped the device (and all its vrings) is stopped",
        method: Method::Look(stopped),
    },
    FrontendCheck {
        name: "state.checked",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_CHECK_DEVICE_STATE"),
        rule: "after transferring the back-end's internal state, check whether the back-end \
               successfully saved or loaded it: before a ring is started, and before the next one",
        method: Method::Look(checked),
    },
    FrontendCheck {
        name: "state.carried-as-it-is",
        level: Level::Must,
        source: MIGRATING,
        rule: "the state is opaque to the front-end: what is loaded is what was saved, and the \
               end of data is signalled by closing the writing end",
        method: Method::Look(unaltered),
    },
];

const SET: &[FrontendReq] = &[FrontendReq::SET_DEVICE_STATE_FD];

fn known(history: &History) -> Verdict {
    each(history, SET, |seen| {
        let found = direction_and_phase(&seen.payload);
        demand(matches!(found, Some((0 | 1, 0))), || {
            format!("direction and phase are {found:?}")
        })
    })
}

fn stopped(history: &History) -> Verdict {
    each(history, SET, |seen| {
        demand(!seen.before.is_running(), || {
            "SET_DEVICE_STATE_FD while a ring is started".into()
        })
    })
}

fn checked(history: &History) -> Verdict {
    each(history, SET, |_| Ok(()))?;
    let mut open: Option<&Seen> = None;
    for seen in history.seen() {
        let is_next = seen.is_one_of(SET) || seen.is(FrontendReq::SET_VRING_KICK);
        let is_same = open.is_some_and(|set| set.connection == seen.connection);
        demand(!is_next || !is_same, || {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            format!("{name} behind SET_DEVICE_STATE_FD, without CHECK_DEVICE_STATE")
        })?;
        if seen.is_one_of(SET) {
            open = Some(seen);
        } else if seen.is(FrontendReq::CHECK_DEVICE_STATE) {
            open = None;
        }
    }
    Ok(())
}

fn unaltered(history: &History) -> Verdict {
    each(history, &[FrontendReq::CHECK_DEVICE_STATE], |_| Ok(()))?;
    match history.troubles().get(&Trouble::DeviceState) {
        Some(text) => Err(Fault::broken(text.clone())),
        None => Ok(()),
    }
}
