//! The log of written pages, for live migration.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{VhostUserLog, VhostUserVringAddrFlags};
use vhost_user_wire::features::VHOST_F_LOG_ALL;
use vhost_user_wire::frontend::{SetFeatures, SetLogBase, SetVringAddr};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{DriverError, PAGE, Session};

const SHMFD: Need = Need::Protocol(Protocol::LOG_SHMFD);
const LOG_ALL: Need = Need::Feature(VHOST_F_LOG_ALL, "VHOST_F_LOG_ALL");
const MIGRATION: Source = Source::VhostUser("Migration");

pub const CHECKS: &[Check] = &[
    Check {
        name: "log.base-is-answered",
        level: Level::Must,
        source: Source::VhostUser("Communication"),
        rule: "SET_LOG_BASE requires a reply, if LOG_SHMFD is negotiated",
        needs: &[SHMFD],
        run: base_is_answered,
    },
    Check {
        name: "log.written-pages",
        level: Level::Should,
        source: MIGRATION,
        rule: "all the modifications to memory pointed by vring descriptor should be marked",
        needs: &[SHMFD, LOG_ALL, Need::Sample],
        run: written_pages,
    },
    Check {
        name: "log.used-ring",
        level: Level::Should,
        source: MIGRATION,
        rule: "modifications to the used vring should be marked if VHOST_VRING_F_LOG is part of \
               the ring's flags",
        needs: &[SHMFD, LOG_ALL, Need::Sample],
        run: |bench| used_ring(bench, 0),
    },
    Check {
        name: "log.used-ring-elsewhere",
        level: Level::Should,
        source: MIGRATION,
        rule: "log_guest_addr should be used to calculate the log offset of the used ring; this \
               value might be outside the legal guest physical address range",
        needs: &[SHMFD, LOG_ALL, Need::Sample],
        run: |bench| used_ring(bench, PAGES * PAGE),
    },
    Check {
        name: "log.nothing-before-it-is-on",
        level: Level::Should,
        source: MIGRATION,
        rule: "to start logging, the front-end sends SET_FEATURES with VHOST_F_LOG_ALL: before it \
               nothing is marked",
        needs: &[SHMFD, LOG_ALL, Need::Sample],
        run: nothing_before,
    },
];

/// Pages of the memory here, a bit each.
const PAGES: u64 = 256;
/// What the log has room for: pages beyond memory too, for used rings that are logged elsewhere.
const LOG: u64 = PAGE;

fn prepared(bench: &Bench) -> Result<(Session, File), Fault> {
    let setup = bench.setup().require_protocol(Protocol::LOG_SHMFD);
    let mut session = bench.start(&setup)?;
    let file = host_io::files::sealed_memfd("log", LOG).map_err(DriverError::from)?;
    let payload = VhostUserLog::new(LOG, 0);
    let base = SetLogBase {
        payload,
        file: file.as_fd(),
    };
    session.frontend().request(&base)?;
    Ok((session, file))
}

/// Has writes logged: those of buffers, and those of used rings at their own addresses moved up
/// by `shift`.
fn switch_on(session: &mut Session, shift: u64) -> Verdict {
    let features = session.negotiated().features | 1 << VHOST_F_LOG_ALL;
    session.frontend().execute(&SetFeatures(features))?;
    for index in 0..session.queues().len() {
        let log = session.queue(index).places().device + shift;
        let flags = VhostUserVringAddrFlags::VHOST_VRING_F_LOG;
        let address = session.vring_addr(index, flags, log);
        session.frontend().execute(&SetVringAddr(address))?;
    }
    Ok(())
}

fn marked(file: &File) -> Result<Vec<u64>, Fault> {
    let mut log = vec![0; LOG as usize];
    file.read_exact_at(&mut log, 0).map_err(DriverError::from)?;
    let is_marked = |page: &u64| log[(page / 8) as usize] & 1 << (page % 8) != 0;
    Ok((0..LOG * 8).filter(is_marked).collect())
}

fn base_is_answered(bench: &Bench) -> Verdict {
    prepared(bench).map(drop)
}

/// Pages that change while the sample runs a few times, each time in other buffers.
fn changed_pages(bench: &Bench, session: &mut Session) -> Result<Vec<u64>, Fault> {
    let memory = Rc::clone(session.memory());
    let before = memory.read(0, (PAGES * PAGE) as usize)?;
    let sample = bench.sample();
    for _ in 0..8 {
        let buffers = bench.place(session)?;
        session.run(sample.queue, &buffers)?;
    }
    let after = memory.read(0, (PAGES * PAGE) as usize)?;
    let pages = before
        .chunks(PAGE as usize)
        .zip(after.chunks(PAGE as usize));
    let changed = (0..)
        .zip(pages)
        .filter(|(_, (before, after))| before != after);
    Ok(changed.map(|(page, _)| page).collect())
}

/// Pages that only the driver writes: descriptors, available rings and readable buffers.
fn is_driver_page(session: &Session, page: u64) -> bool {
    let mut queues = session.queues().iter().map(|queue| queue.places());
    queues.any(|places| places.descriptors / PAGE == page || places.driver / PAGE == page)
}

fn written_pages(bench: &Bench) -> Verdict {
    let sample = bench.sample();
    if sample.writable == 0 {
        return Err(Fault::skip(
            "the known request has nothing for the device to write",
        ));
    }
    let (mut session, file) = prepared(bench)?;
    switch_on(&mut session, 0)?;
    let changed = changed_pages(bench, &mut session)?;
    let marked = marked(&file)?;
    let missing: Vec<_> = changed
        .into_iter()
        .filter(|page| !is_driver_page(&session, *page) && !marked.contains(page))
        .collect();
    demand(missing.is_empty(), || {
        format!("pages {missing:?} were written, and marked are {marked:?}")
    })
}

fn used_ring(bench: &Bench, shift: u64) -> Verdict {
    let (mut session, file) = prepared(bench)?;
    switch_on(&mut session, shift)?;
    changed_pages(bench, &mut session)?;
    let marked = marked(&file)?;
    let ring = session.queue(bench.sample().queue).places().device + shift;
    demand(marked.contains(&(ring / PAGE)), || {
        format!("page {} is not marked, but {marked:?}", ring / PAGE)
    })
}

fn nothing_before(bench: &Bench) -> Verdict {
    let (mut session, file) = prepared(bench)?;
    changed_pages(bench, &mut session)?;
    let marked = marked(&file)?;
    demand(marked.is_empty(), || format!("pages {marked:?} are marked"))
}
