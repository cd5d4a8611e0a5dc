//! The thread that writes a trace.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use super::format::Writer;
use super::record::{Event, Record};

/// Records that wait to be written. More are dropped and counted: what is traced never waits for
/// a slow disk or reader.
const QUEUE: usize = 1 << 14;

/// The trace could not be written as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("cannot write the trace; records are missing from there on")]
    Write(#[from] io::Error),
    #[error("the thread that writes the trace ended by a panic")]
    Panicked,
}

/// Takes records, and never waits.
pub struct Sink {
    queue: SyncSender<Record>,
    /// Records dropped since the last that found room.
    lost: u64,
    thread: JoinHandle<io::Result<()>>,
}

impl Sink {
    /// Starts the thread.
    pub fn start(writer: Box<dyn Writer>) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let thread = thread::Builder::new().name("trace".into());
        let thread = thread.spawn(move || write_all(writer, &records))?;
        Ok(Self {
            queue,
            lost: 0,
            thread,
        })
    }

    pub fn push(&mut self, record: Record) {
        if self.lost > 0 {
            let lost = Record {
                event: Event::Lost { records: self.lost },
                ..record.clone()
            };
            if self.queue.try_send(lost).is_ok() {
                self.lost = 0;
            }
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(record) {
            self.lost += 1;
        }
    }

    /// Waits until all is written.
    pub fn finish(self) -> Result<(), SinkError> {
        drop(self.queue);
        Ok(self.thread.join().map_err(|_| SinkError::Panicked)??)
    }
}

/// Flushes whenever there is nothing more to write for now, so that the file is whole when the
/// process is killed.
fn write_all(mut writer: Box<dyn Writer>, records: &Receiver<Record>) -> io::Result<()> {
    loop {
        let record = match records.try_recv() {
            Ok(record) => Some(record),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                writer.flush()?;
                records.recv().ok()
            }
        };
        match record {
            Some(record) => writer.record(&record)?,
            None => return writer.finish(),
        }
    }
}
