//! `monitor info mem`: the mappings of a vCPU's page tables, as QEMU's monitor lists them.

use super::args::{Output, only_vcpu};
use super::error::MonitorError;
use crate::hmp;
use crate::session::Session;

pub(super) fn mem(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let vcpu = only_vcpu(session, arguments)?;
    let space = session.guest.machine.address_space(vcpu)?;
    let read = |at, buf: &mut [u8]| session.guest.machine.read_physical(at, buf);
    Ok(hmp::write_mappings(out, &space, read)?)
}
