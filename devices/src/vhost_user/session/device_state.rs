//! The backend's own state, which survives its replacement (vhost-user document,
//! "Migrating back-end state"): for example the open files of a file system.
//!
//! A backend whose rings are stopped saves it, and its successor loads it before
//! any ring runs. The frontend does not look into it.

use std::fs::File;
use std::io::{self, Read, Write};
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
/// A pipe that is writable takes so many bytes at once (PIPE_BUF).
const CHUNK: usize = 4096;

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
    Ok(file.unwrap_or_else(|| ours.into()))
}

fn check(channel: &mut Channel, deadline: &Deadline) -> Result<(), Problem> {
    match channel.ask(&CheckDeviceState, deadline)? {
        0 => Ok(()),
        code => Err(Problem::StateRefused { code }),
    }
}

fn read_all(channel: &mut Channel, from: &mut File, deadline: &Deadline) -> io::Result<Vec<u8>> {
    let mut state = Vec::new();
    let mut bytes = vec![0; 16 * CHUNK];
    loop {
        channel.wait_for(from, PollFlags::IN, deadline)?;
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(state);
        }
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
    for chunk in state.chunks(CHUNK) {
        channel.wait_for(to, PollFlags::OUT, deadline)?;
        to.write_all(chunk)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "device_state_test.rs"]
mod tests;
