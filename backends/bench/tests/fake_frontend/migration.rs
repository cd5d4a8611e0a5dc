//! What a frontend does when it moves to another host: it has written pages logged, and carries the
//! device's state.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::{VhostUserLog, VhostUserVringAddr, VhostUserVringAddrFlags};
use vhost_user_wire::Payload;

use super::breaks::Break;
use super::guest::Guest;
use super::link::{Done, Gone, Link};

const LOG_ALL: u64 = 1 << 26;
const PAGE: u64 = 4096;
const SAVE: u32 = 0;
const LOAD: u32 = 1;

/// Has requests logged, and looks at the log. `features` are those that are accepted.
pub fn log_writes(link: &mut Link, guest: &mut Guest, features: u64) -> Done {
    let what = link.what();
    if what == Break::LogLate {
        link.tell(2, &(features | LOG_ALL).to_bytes(), &[])?;
    }
    let file = host_io::files::sealed_memfd("log", PAGE).unwrap();
    let size = match what {
        // Less than a bit for each page.
        Break::LogSmall => 8,
        Break::LogShortFile => 2 * PAGE,
        _ => PAGE,
    };
    let log = VhostUserLog::new(size, 0);
    let reply = link.ask_with(6, &log.to_bytes(), &[file.as_fd()])?;
    if link.whole::<u64>(&reply)? != 0 {
        return Err(Gone::Wrong("the log was refused".into()));
    }
    link.tell(2, &(features | LOG_ALL).to_bytes(), &[])?;
    let used = match what {
        Break::LogUsedBeyond => 1 << 40,
        _ => guest.queue.places().device,
    };
    link.tell(9, &addresses(guest, Some(used)).to_bytes(), &[])?;
    guest.run(1);
    // What is answered now comes behind the request.
    link.tell(9, &addresses(guest, None).to_bytes(), &[])?;
    link.tell(2, &features.to_bytes(), &[])?;
    let page = guest.queue.places().device / PAGE;
    let mut byte = [0];
    file.read_exact_at(&mut byte, page / 8).unwrap();
    let is_sound = !matches!(what, Break::LogUsedBeyond | Break::LogSmall);
    if byte[0] & 1 << (page % 8) == 0 && is_sound && guest.is_sound() {
        return Err(Gone::Wrong("the used ring is not logged".into()));
    }
    Ok(())
}

/// Those of the ring, with where its used ring is logged.
pub fn addresses(guest: &Guest, log: Option<u64>) -> VhostUserVringAddr {
    let [descriptors, available, used] = guest.places();
    let flags = match log {
        Some(_) => VhostUserVringAddrFlags::VHOST_VRING_F_LOG,
        None => VhostUserVringAddrFlags::empty(),
    };
    VhostUserVringAddr::new(0, flags, descriptors, used, available, log.unwrap_or(0))
}

/// Has the device save its state, and load it again.
pub fn carry_state(link: &mut Link) -> Done {
    let (mut reader, writer) = std::io::pipe().unwrap();
    begin(link, SAVE, writer.into())?;
    let mut state = Vec::new();
    reader.read_to_end(&mut state).unwrap();
    if link.what() != Break::StateUnchecked {
        check(link)?;
    }
    if link.what() == Break::StateAltered {
        state.push(0);
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    begin(link, LOAD, reader.into())?;
    writer.write_all(&state).unwrap();
    drop(writer);
    check(link)
}

fn begin(link: &mut Link, direction: u32, end: OwnedFd) -> Done {
    let phase = if link.what() == Break::StatePhase {
        7
    } else {
        0
    };
    let payload = [direction, phase].map(u32::to_ne_bytes).concat();
    let end = File::from(end);
    let reply = link.ask_with(42, &payload, &[end.as_fd()])?;
    match link.whole::<u64>(&reply)? & 0xff {
        0 => Ok(()),
        code => Err(Gone::Wrong(format!("no state is transferred: {code}"))),
    }
}

fn check(link: &mut Link) -> Done {
    match link.number(43)? {
        0 => Ok(()),
        code => Err(Gone::Wrong(format!(
            "the state was not transferred: {code}"
        ))),
    }
}
