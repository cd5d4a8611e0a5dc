//! Messages as a stream of bytes: in pieces, many at once, and cut off.

use std::time::Duration;

use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::frontend::{FrontendMessage, GetFeatures, SetFeatures, SetVringNum};
use vhost_user_wire::{Header, Payload};

use super::steps::next_is_served;
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict};
use crate::driver::{DriverError, wait_readable};

const COMMUNICATION: Source = Source::VhostUser("Communication");

pub const CHECKS: &[Check] = &[
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
];

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
