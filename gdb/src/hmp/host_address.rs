//! Where a debugger of this process finds guest memory, as QEMU's monitor says it with
//! `gpa2hva`.

use std::fmt::{self, Write};

use super::mtree::RAM;
use crate::address::PhysAddr;

/// `host` is the address of `addr` in this process.
pub fn write_host_address(out: &mut dyn Write, addr: PhysAddr, host: Option<u64>) -> fmt::Result {
    let addr = addr.0;
    match host {
        Some(host) => writeln!(
            out,
            "Host virtual address for {addr:#x} ({RAM}) is {host:#x}"
        ),
        None => writeln!(out, "No memory is mapped at address {addr:#x}"),
    }
}
