//! The buffer that a backend makes for its record, and sessions that hand it over.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{GetInflightFd, SetInflightFd};

use crate::check::bench::Bench;
use crate::check::types::{Fault, Verdict};
use crate::driver::{DriverError, Format, Session, Setup};

/// Descriptors of the queues here.
pub(super) const SIZE: u16 = 64;

/// Bytes of a queue's region before its entries.
pub(super) const fn head(format: Format) -> u64 {
    match format {
        Format::Split => 16,
        Format::Packed => 32,
    }
}

/// Bytes of a DescStateSplit, or of a DescStatePacked. The first one is `inflight`.
pub(super) const fn entry(format: Format) -> u64 {
    match format {
        Format::Split => 16,
        Format::Packed => 32,
    }
}

/// A record as the backend made it.
pub(super) struct Record {
    place: VhostUserInflight,
    file: File,
    format: Format,
}

impl Record {
    pub(super) fn ask(session: &mut Session, queues: usize, format: Format) -> Result<Self, Fault> {
        let request = GetInflightFd {
            queues: queues as u16,
            queue_size: SIZE,
        };
        let (place, files) = session.frontend().request_with_files(&request)?;
        match <[File; 1]>::try_from(files) {
            Ok([file]) => Ok(Self {
                place,
                file,
                format,
            }),
            Err(files) => Err(Fault::broken(format!(
                "{} files came with the reply in place of one",
                files.len()
            ))),
        }
    }

    pub(super) fn place(&self) -> VhostUserInflight {
        self.place
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn hand_over(&self, session: &mut Session) -> Result<(), DriverError> {
        let (payload, file) = (self.place, self.file.as_fd());
        session.frontend().execute(&SetInflightFd { payload, file })
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>, DriverError> {
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, self.place.mmap_offset + at)?;
        Ok(bytes)
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), DriverError> {
        Ok(self.file.write_all_at(bytes, self.place.mmap_offset + at)?)
    }

    pub(super) fn number(&self, at: u64) -> Result<u16, DriverError> {
        let bytes = self.bytes(at, 2)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u16::from_le_bytes(*bytes)))
    }

    /// The first entry of queue 0 that is in flight.
    pub(super) fn in_flight(&self) -> Result<Option<usize>, DriverError> {
        let size = entry(self.format) as usize;
        let entries = self.bytes(head(self.format), usize::from(SIZE) * size)?;
        Ok(entries.chunks(size).position(|entry| entry[0] != 0))
    }
}

pub(super) fn tracked(bench: &Bench, format: Format) -> Setup {
    let queues = bench.profile().least_queues();
    let setup = bench.setup().queues(queues, SIZE).format(format);
    setup.require_protocol(Protocol::INFLIGHT_SHMFD)
}

pub(super) fn prepared(bench: &Bench, format: Format) -> Result<(Session, Record), Fault> {
    let mut session = tracked(bench, format).prepare(bench.connect()?)?;
    let record = Record::ask(&mut session, bench.profile().least_queues(), format)?;
    Ok((session, record))
}

/// Hands over the record and starts all rings, each where its used ring ends.
pub(super) fn start(session: &mut Session, record: &Record) -> Verdict {
    record.hand_over(session)?;
    session.share_memory()?;
    for index in 0..session.queues().len() {
        let base = session.queue(index).used_base();
        session.restart(index, base)?;
        session.queue(index).kick();
    }
    Ok(())
}

/// A session whose rings run, with a record of their requests.
pub fn start_with_record(bench: &Bench, format: Format) -> Result<Session, Fault> {
    let (mut session, record) = prepared(bench, format)?;
    start(&mut session, &record)?;
    Ok(session)
}
