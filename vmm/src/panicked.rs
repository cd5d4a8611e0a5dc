//! A guest that panicked or crashed: it is stopped, and dumped where the user wants that.

use crate::config::PanicDump;
use crate::dump::Snapshot;
use crate::layout;
use crate::machine::{self, Machine};
use crate::say;
use gdb::target::VcpuId;
use host_io::errors::chain;

/// Stops all vCPUs and writes the dump. Where that fails, the machine still does what is
/// next.
pub fn stop_and_dump(machine: &Machine, dump: Option<&PanicDump>) -> Result<(), machine::Error> {
    // Nobody resumes them while they are dumped.
    let _group = machine.stop()?;
    let Some(PanicDump { path, format }) = dump else {
        return Ok(());
    };
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
