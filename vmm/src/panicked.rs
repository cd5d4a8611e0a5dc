//! A guest that panicked or crashed: it is stopped, and dumped where the user wants that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::config::PanicDump;
use crate::dump::Snapshot;
use crate::events::{Inbox, channel};
use crate::layout;
use crate::machine::{self, Machine};
use crate::say;
use gdb::target::VcpuId;
use host_io::errors::chain;

/// A dump that is under way, on a thread of its own: a file may take its time.
pub struct Dumping {
    over: Inbox<Result<(), machine::Error>>,
    thread: JoinHandle<()>,
}

impl Dumping {
    /// Stops all vCPUs and has the dump written. Where that fails, the machine still does
    /// what is next.
    pub fn start(machine: &Arc<Machine>, dump: &PanicDump) -> io::Result<Self> {
        let (notifier, over) = channel()?;
        let (machine, dump) = (machine.clone(), dump.clone());
        let thread = thread::Builder::new().name("dump".into()).spawn(move || {
            notifier.send(stop_and_dump(&machine, &dump));
        })?;
        Ok(Self { over, thread })
    }

    /// The result, when it is over.
    pub fn result(&self) -> Option<Result<(), machine::Error>> {
        self.over.take()
    }

    /// Waits for the end, behind which the file is whole or gone.
    pub fn finish(self) {
        // A thread that panicked has been reported.
        let _ = self.thread.join();
    }
}

/// Readable when it is over.
impl AsFd for Dumping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.over.as_fd()
    }
}

fn stop_and_dump(machine: &Machine, dump: &PanicDump) -> Result<(), machine::Error> {
    // Nobody resumes them while they are dumped.
    let _group = machine.stop()?;
    let PanicDump { path, format } = dump;
    let snapshot = Snapshot::new(machine.memory(), machine.vcpus().handles());
    match snapshot.and_then(|snapshot| snapshot.save(path, *format)) {
        Ok(saved) => say!("outboard: dumped to {}: {saved}", path.display()),
        Err(error) => say!("outboard: {}", chain(&error)),
    }
    Ok(())
}

/// The vCPU that told of the panic.
pub fn vcpu(machine: &Machine) -> VcpuId {
    let vcpus = machine.vcpus().handles().iter();
    let mut last = vcpus.map(|vcpu| vcpu.counters().recent().list().pop());
    let told = last.position(|exit| exit.is_some_and(|exit| exit.addr == Some(layout::PVPANIC)));
    VcpuId(told.unwrap_or(0))
}
