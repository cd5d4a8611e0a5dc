//! Words of QEMU's monitor that mean something else to gdb's users here.
//!
//! Front ends that have asked whether the stub is QEMU's read the answers as QEMU writes them.
//! For QEMU's other words the commands for everybody have its format already.

use super::args::{Output, Words, no_argument, number, only_vcpu};
use super::error::MonitorError;
use crate::hmp;
use crate::session::Session;
use crate::target::{Activity, PhysAddr, VcpuId};

pub(super) fn registers(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    if arguments == "-a" {
        let mut vcpus = session.guest.machine.vcpus();
        return vcpus.try_for_each(|vcpu| write_vcpu(session, vcpu, out));
    }
    let vcpu = only_vcpu(session, arguments)?;
    write_vcpu(session, vcpu, out)
}

/// QEMU begins each with an empty line.
fn write_vcpu(
    session: &mut Session<'_>,
    vcpu: VcpuId,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let registers = session.guest.machine.registers(vcpu)?;
    let is_halted = session.guest.machine.activity(vcpu)? == Activity::Halted;
    let debug = session.guest.machine.inspect().debug_registers(vcpu)?;
    writeln!(out)?;
    Ok(hmp::write_registers(
        out, vcpu.0, &registers, is_halted, &debug,
    )?)
}

pub(super) fn mtree(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let rest = arguments.strip_prefix("-f").unwrap_or(arguments);
    no_argument("info mtree", rest)?;
    let vcpus = session.guest.machine.vcpu_count();
    let inspect = session.guest.machine.inspect();
    let (ports, memory) = (inspect.ports()?, inspect.windows()?);
    Ok(hmp::write_mtree(out, ports, memory, vcpus)?)
}

pub(super) fn gpa2hva(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let addr = number(session, vcpu, words.need("a physical address")?)?;
    words.end()?;
    let host = session.guest.machine.inspect().host_address(PhysAddr(addr));
    Ok(hmp::write_host_address(out, PhysAddr(addr), host)?)
}

pub(super) fn xp(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let format = words.slash().unwrap_or_default();
    let addr = number(session, vcpu, words.need("a physical address")?)?;
    words.end()?;
    let read = |at, bytes: &mut [u8]| {
        let found = session.guest.read_physical_hidden(at, bytes);
        found == bytes.len()
    };
    Ok(hmp::write_memory(out, format, PhysAddr(addr), read)?)
}
