//! The backend's own state, which survives its replacement (vhost-user document,
//! "Migrating back-end state"): for example the open files of a file system.
//!
//! A backend whose rings are stopped saves it, and its successor loads it before
//! any ring runs. The frontend does not look into it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use vhost::vhost_user::message::VhostTransferStateDirection as Direction;
use vhost_user_wire::frontend::{CheckDeviceState, SetDeviceStateFd};
use vhost_user_wire::payload::STATE_ERROR_MASK;

use super::channel::Channel;
use crate::deadline::Deadline;
use crate::vhost_user::error::Problem;

/// More than any known backend has, in bytes.
const MAX_SIZE: usize = 64 << 20;
/// So much is read at once.
const CHUNK: usize = 64 << 10;

/// Has the backend write its state, and reads it.
pub fn save(channel: &mut Channel, deadline: &Deadline) -> Result<Vec<u8>, Problem> {
    let (ours, theirs) = io::pipe().map_err(Problem::State)?;
    let mut from = begin(
        channel,
        Direction::SAVE,
        ours.into(),
        theirs.into(),
        deadline,
    )?;
    let state = read_all(channel, &mut from, deadline).map_err(Problem::State)?;
    check(channel, deadline)?;
    Ok(state)
}

/// Has the backend read `state`.
pub fn load(channel: &mut Channel, state: &[u8], deadline: &Deadline) -> Result<(), Problem> {
    let (theirs, ours) = io::pipe().map_err(Problem::State)?;
    let mut to = begin(
        channel,
        Direction::LOAD,
        ours.into(),
        theirs.into(),
        deadline,
    )?;
    write_all(channel, &mut to, state, deadline).map_err(Problem::State)?;
    // The end of the state.
    drop(to);
    check(channel, deadline)
}

/// Hands over one end of a pipe. The backend may answer with a file to use instead.
fn begin(
    channel: &mut Channel,
    direction: Direction,
    ours: OwnedFd,
    theirs: OwnedFd,
    deadline: &Deadline,
) -> Result<File, Problem> {
    let request = SetDeviceStateFd::new(direction, theirs.as_fd());
    let (code, file) = channel.ask_for_file(&request, deadline)?;
    if code & STATE_ERROR_MASK != 0 {
        return Err(Problem::StateRefused { code });
    }
    let file = file.unwrap_or_else(|| ours.into());
    // A socket of the backend's, for instance, may be ready and still not take all at once.
    rustix::io::ioctl_fionbio(&file, true).map_err(|error| Problem::State(error.into()))?;
    Ok(file)
}

fn check(channel: &mut Channel, deadline: &Deadline) -> Result<(), Problem> {
    match channel.ask(&CheckDeviceState, deadline)? {
        0 => Ok(()),
        code => Err(Problem::StateRefused { code }),
    }
}

fn read_all(channel: &mut Channel, from: &mut File, deadline: &Deadline) -> io::Result<Vec<u8>> {
    let mut state = Vec::new();
    let mut bytes = vec![0; CHUNK];
    loop {
        channel.wait_for(from, PollFlags::IN, deadline)?;
        let count = match from.read(&mut bytes) {
            Ok(0) => return Ok(state),
            Ok(count) => count,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        if state.len() + count > MAX_SIZE {
            let text = format!("the state is longer than {MAX_SIZE} bytes");
            return Err(io::Error::other(text));
        }
        state.extend_from_slice(&bytes[..count]);
    }
}

fn write_all(
    channel: &mut Channel,
    to: &mut File,
    state: &[u8],
    deadline: &Deadline,
) -> io::Result<()> {
    let mut rest = state;
    while !rest.is_empty() {
        channel.wait_for(to, PollFlags::OUT, deadline)?;
        match to.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// It was not ready after all.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "device_state_test.rs"]
mod tests;
