//! The device's own state, saved and loaded; and shared memory regions.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use vhost::vhost_user::message::VhostTransferStateDirection as Direction;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{CheckDeviceState, GetShmemConfig, SetDeviceStateFd};
use vhost_user_wire::payload::{NO_FILE, STATE_ERROR_MASK};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{DEADLINE, DriverError, PAGE, Session, wait_readable};

const STATE: Need = Need::Protocol(Protocol::DEVICE_STATE);
const SHMEM: Need = Need::Protocol(Protocol::SHMEM);
const MIGRATING: Source = Source::VhostUser("Migrating back-end state");
const SHMEM_CONFIG: Source = Source::VhostUser("VHOST_USER_GET_SHMEM_CONFIG");

pub const CHECKS: &[Check] = &[
    Check {
        name: "state.save",
        level: Level::Must,
        source: MIGRATING,
        rule: "the writing end writes all the data it has, signalling the end of data by closing \
               its end; CHECK_DEVICE_STATE returns 0",
        needs: &[STATE, Need::Sample],
        run: |bench| save(bench).map(drop),
    },
    Check {
        name: "state.save-and-load",
        level: Level::Must,
        source: MIGRATING,
        rule: "the destination back-end must deserialize its internal state from that data and \
               set itself up to allow the driver to seamlessly resume operation",
        needs: &[STATE, Need::Sample],
        run: save_and_load,
    },
    Check {
        name: "state.source-resumes",
        level: Level::Should,
        source: MIGRATING,
        rule: "if the migration fails, then the source can transparently resume operation",
        needs: &[STATE, Need::Sample],
        run: source_resumes,
    },
    Check {
        name: "shmem.config",
        level: Level::Must,
        source: SHMEM_CONFIG,
        rule: "the Shared Memory Region size must be a multiple of the page size supported by \
               mmap(2)",
        needs: &[SHMEM],
        run: shmem_config,
    },
    Check {
        name: "shmem.unchanged",
        level: Level::Must,
        source: SHMEM_CONFIG,
        rule: "the shared information will remain valid and unchanged for the entire lifetime of \
               the connection",
        needs: &[SHMEM],
        run: shmem_unchanged,
    },
];

/// A session whose rings are stopped, with their bases, and the state of its device.
struct Saved {
    session: Session,
    bases: Vec<u32>,
    state: Vec<u8>,
}

/// Starts a transfer; returns the file to use.
fn transfer(
    session: &mut Session,
    direction: Direction,
    file: &std::os::fd::OwnedFd,
) -> Result<Option<std::fs::File>, Fault> {
    let request = SetDeviceStateFd::new(direction, file.as_fd());
    let (reply, mut files) = session.frontend().request_with_files(&request)?;
    demand(reply & STATE_ERROR_MASK == 0, || {
        format!("SET_DEVICE_STATE_FD returned {reply:#x}")
    })?;
    let has_file = reply & NO_FILE == 0;
    demand(has_file != files.is_empty(), || {
        format!("the reply is {reply:#x}, and {} files came", files.len())
    })?;
    Ok(files.pop())
}

fn check(session: &mut Session) -> Verdict {
    let result = session.frontend().request(&CheckDeviceState)?;
    demand(result == 0, || {
        format!("CHECK_DEVICE_STATE returned {result}")
    })
}

fn save(bench: &Bench) -> Result<Saved, Fault> {
    let setup = bench.setup().require_protocol(Protocol::DEVICE_STATE);
    let mut session = bench.start(&setup)?;
    bench.run_sample(&mut session)?;
    let mut bases = Vec::new();
    for index in 0..session.queues().len() {
        bases.push(session.stop(index)?);
    }
    let (reader, writer) = std::io::pipe().map_err(DriverError::from)?;
    let own = transfer(&mut session, Direction::SAVE, &writer.into())?;
    let mut source: std::fs::File = own.unwrap_or(std::os::fd::OwnedFd::from(reader).into());
    let mut state = Vec::new();
    read_to_end(&mut source, &mut state)?;
    check(&mut session)?;
    Ok(Saved {
        session,
        bases,
        state,
    })
}

fn read_to_end(source: &mut std::fs::File, state: &mut Vec<u8>) -> Verdict {
    let mut bytes = [0; 4096];
    loop {
        if !wait_readable(&*source, DEADLINE).map_err(DriverError::from)? {
            return Err(Fault::broken("the state does not end"));
        }
        match source.read(&mut bytes).map_err(DriverError::from)? {
            0 => return Ok(()),
            count => state.extend(&bytes[..count]),
        }
    }
}

fn save_and_load(bench: &Bench) -> Verdict {
    let Saved {
        session,
        bases,
        state,
    } = save(bench)?;
    let (memory, queues) = session.disconnect();
    // The destination is another back-end; this one may end, now that it has given its state away.
    bench.kill();
    let setup = bench.setup().require_protocol(Protocol::DEVICE_STATE);
    let setup = setup.shared_memory(&memory).queues(0, 0);
    let mut session = setup.prepare(bench.connect()?)?.with_queues(queues);
    let (reader, writer) = std::io::pipe().map_err(DriverError::from)?;
    let own = transfer(&mut session, Direction::LOAD, &reader.into())?;
    let mut sink: std::fs::File = own.unwrap_or(std::os::fd::OwnedFd::from(writer).into());
    sink.write_all(&state).map_err(DriverError::from)?;
    drop(sink);
    check(&mut session)?;
    session.share_memory()?;
    resume(bench, &mut session, &bases)
}

fn resume(bench: &Bench, session: &mut Session, bases: &[u32]) -> Verdict {
    for (index, base) in bases.iter().enumerate() {
        session.restart(index, *base)?;
        session.queue(index).kick();
    }
    bench.run_sample(session)?;
    Ok(())
}

fn source_resumes(bench: &Bench) -> Verdict {
    let mut saved = save(bench)?;
    resume(bench, &mut saved.session, &saved.bases)
}

fn shared(bench: &Bench) -> Result<Session, Fault> {
    let setup = bench.setup().require_protocol(Protocol::SHMEM);
    Ok(setup.prepare(bench.connect()?)?)
}

fn shmem_config(bench: &Bench) -> Verdict {
    let sizes = shared(bench)?.frontend().request(&GetShmemConfig)?.0;
    let odd = sizes.iter().position(|size| !size.is_multiple_of(PAGE));
    demand(odd.is_none(), || {
        let region = odd.unwrap_or(0);
        format!("region {region} has {} bytes", sizes[region])
    })
}

fn shmem_unchanged(bench: &Bench) -> Verdict {
    let mut session = shared(bench)?;
    let first = session.frontend().request(&GetShmemConfig)?;
    let second = session.frontend().request(&GetShmemConfig)?;
    demand(first == second, || "the second reply is another".into())
}
