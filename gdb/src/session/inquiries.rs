//! Answers to the packets of [`crate::inquiry`].

use std::time::{Duration, Instant};

use memchr::memmem;

use super::Session;
use super::base::{MAX_READ, errno};
use crate::address::{VcpuId, VirtAddr};
use crate::inquiry::Inquiry;
use crate::packet::encoded;
use crate::paging::{Region, Rights};

/// How long a search may take: gdb waits two seconds for an answer.
const SEARCH: Duration = Duration::from_millis(1500);

impl Session<'_> {
    /// A packet's body; `thread` is the one that the client has chosen.
    pub(crate) fn answer_inquiry(&mut self, thread: usize, inquiry: &Inquiry) -> String {
        match inquiry {
            Inquiry::Host => {
                let triple = encoded(b"x86_64-unknown-unknown");
                format!(
                    "triple:{triple};endian:little;ptrsize:8;vm-page-size:4096;\
                     watchpoint_exceptions_received:after;"
                )
            }
            Inquiry::Process => "pid:1;endian:little;ptrsize:8;".to_owned(),
            Inquiry::Regions => "OK".to_owned(),
            Inquiry::Region(addr) => match self.region(thread, *addr) {
                Ok(region) => described(region),
                Err(error) => format!("error:{};", encoded(error.as_bytes())),
            },
            Inquiry::Search { addr, len, pattern } => self.search(thread, *addr, *len, pattern),
        }
    }

    /// By the page tables that a read of `addr` uses.
    fn region(&self, thread: usize, addr: u64) -> Result<Region, String> {
        let vcpu = thread.checked_sub(1).map(VcpuId);
        let vcpu = vcpu.filter(|vcpu| vcpu.0 < self.guest.machine.vcpu_count());
        let vcpu = vcpu.ok_or_else(|| format!("there is no thread {thread}"))?;
        if self.is_running() {
            return Err("the guest runs".to_owned());
        }
        let own = self.guest.machine.address_space(vcpu);
        let own = own.map_err(|error| error.to_string())?;
        let read = |at, buf: &mut [u8]| self.guest.machine.read_physical(at, buf);
        let region = own.region(addr, read);
        let by_kernel = self.guest.translate_by_kernel(VirtAddr(addr));
        Ok(match by_kernel {
            Some((space, _)) if region.rights.is_none() => space.region(addr, read),
            _ => region,
        })
    }

    /// gdb takes an error for a pattern that is not there; its user is told of it.
    fn search(&mut self, thread: usize, addr: u64, len: u64, pattern: &[u8]) -> String {
        let begun = Instant::now();
        let finder = memmem::Finder::new(pattern);
        // The address space does not wrap.
        let (mut next, mut left) = (addr, len.min((u64::MAX - addr).saturating_add(1)));
        let mut seen: Vec<u8> = Vec::new();
        while left > 0 {
            let wanted = left.min(MAX_READ as u64) as usize;
            let bytes = self.read_for_thread(thread, next, wanted);
            let bytes = bytes.unwrap_or_default();
            let ended = match bytes.is_empty() {
                true => Some("it cannot be read"),
                false if begun.elapsed() > SEARCH => Some("gdb would not wait longer"),
                false => None,
            };
            if let Some(why) = ended {
                self.notice(format!("the search ended at {next:#x}: {why}"));
                return format!("E{:02x}", errno::EFAULT);
            }
            seen.extend(&bytes);
            next = next.wrapping_add(bytes.len() as u64);
            left -= bytes.len() as u64;
            if let Some(at) = finder.find(&seen) {
                let behind = (seen.len() - at) as u64;
                return format!("1,{:x}", next.wrapping_sub(behind));
            }
            seen.drain(
                ..(seen.len() + 1)
                    .saturating_sub(pattern.len())
                    .min(seen.len()),
            );
        }
        "0".to_owned()
    }
}

/// A region as LLDB reads it, whose end is a 64-bit number too.
fn described(region: Region) -> String {
    let size = region.last.saturating_add(1) - region.start;
    let place = format!("start:{:x};size:{size:x};", region.start);
    match region.rights {
        Some(Rights { write, execute, .. }) => {
            let write = if write { "w" } else { "" };
            let execute = if execute { "x" } else { "" };
            format!("{place}permissions:r{write}{execute};")
        }
        None => place,
    }
}
