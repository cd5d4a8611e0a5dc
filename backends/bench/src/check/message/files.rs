//! Files that are missing, or that nobody asked for.

use std::os::fd::AsFd;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::frontend::{FrontendMessage, SetFeatures, SetVringEnable, SetVringKick};
use vhost_user_wire::{Header, Payload};

use super::steps::{all_writers_gone, next_is_served, refused};
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::{DriverError, Step};

const ACK: Need = Need::Protocol(Protocol::REPLY_ACK);
const COMMUNICATION: Source = Source::VhostUser("Communication");

pub const CHECKS: &[Check] = &[
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
    // A backend that refuses such a message has to close the file too.
    session.frontend().is_served();
    demand(all_writers_gone(&reader), || {
        "the file is still open in the backend".into()
    })
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
