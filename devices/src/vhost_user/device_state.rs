//! The backend's own state, which survives its replacement (vhost-user document,
//! "Migrating back-end state"): what a file system has open, for example.
//!
//! It is saved by a backend whose rings are stopped, and loaded by its successor
//! before any ring runs. What is in it is between the two.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::channel::Channel;
use super::deadline::Deadline;
use super::error::Problem;
use super::message::{CheckDeviceState, Direction, SetDeviceStateFd};

/// More than any known backend has, in bytes.
const MAX_SIZE: usize = 64 << 20;
/// A pipe that is writable takes so many bytes at once (PIPE_BUF).
const CHUNK: usize = 4096;

/// In the answer to SET_DEVICE_STATE_FD: anything here is an error.
const ERROR_MASK: u64 = 0xff;

/// Has the backend write its state, and reads it.
pub fn save(channel: &mut Channel, deadline: &Deadline) -> Result<Vec<u8>, Problem> {
    let (ours, theirs) = io::pipe().map_err(Problem::State)?;
    let mut from = begin(
        channel,
        Direction::Save,
        ours.into(),
        theirs.into(),
        deadline,
    )?;
    let state = read_all(&mut from, deadline).map_err(Problem::State)?;
    check(channel, deadline)?;
    Ok(state)
}

/// Has the backend read `state`.
pub fn load(channel: &mut Channel, state: &[u8], deadline: &Deadline) -> Result<(), Problem> {
    let (theirs, ours) = io::pipe().map_err(Problem::State)?;
    let mut to = begin(
        channel,
        Direction::Load,
        ours.into(),
        theirs.into(),
        deadline,
    )?;
    write_all(&mut to, state, deadline).map_err(Problem::State)?;
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
    let request = SetDeviceStateFd {
        direction,
        fd: theirs.as_raw_fd(),
    };
    let (code, file) = channel.ask_for_file(&request, deadline)?;
    if code & ERROR_MASK != 0 {
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

fn read_all(from: &mut File, deadline: &Deadline) -> io::Result<Vec<u8>> {
    let mut state = Vec::new();
    let mut bytes = vec![0; 16 * CHUNK];
    loop {
        wait(from, EventSet::IN, deadline)?;
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

fn write_all(to: &mut File, state: &[u8], deadline: &Deadline) -> io::Result<()> {
    for chunk in state.chunks(CHUNK) {
        wait(to, EventSet::OUT, deadline)?;
        to.write_all(chunk)?;
    }
    Ok(())
}

/// Waits until `file` is ready. A regular file, which cannot be waited for, is.
fn wait(file: &File, events: EventSet, deadline: &Deadline) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let event = EpollEvent::new(events, 0);
    match epoll.ctl(ControlOperation::Add, file.as_raw_fd(), event) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        result => result?,
    }
    loop {
        let left = deadline.left().ok_or(io::ErrorKind::TimedOut)?;
        // At least a millisecond, lest this spins.
        let millis = left.as_millis().clamp(1, i32::MAX as u128) as i32;
        match epoll.wait(millis, &mut [EpollEvent::default()]) {
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
