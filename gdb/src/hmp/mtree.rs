//! What lies where, as QEMU's monitor lists it with `info mtree -f`.

use std::fmt::{self, Write};

use crate::inspect::Window;

/// QEMU's name of RAM.
pub const RAM: &str = "pc.ram";

/// The ports, and the guest-physical address space, which all of `vcpus` vCPUs see.
pub fn write_mtree(
    out: &mut dyn Write,
    ports: Vec<Window>,
    memory: Vec<Window>,
    vcpus: usize,
) -> fmt::Result {
    out.write_str("FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n")?;
    write_windows(out, ports)?;
    out.write_str("\nFlatView #1\n AS \"memory\", root: system\n")?;
    for vcpu in 0..vcpus {
        writeln!(out, " AS \"cpu-memory-{vcpu}\", root: system")?;
    }
    out.write_str(" Root memory region: system\n")?;
    write_windows(out, memory)?;
    writeln!(out)
}

/// RAM is one block, of which each piece but the first has its place.
fn write_windows(out: &mut dyn Write, mut windows: Vec<Window>) -> fmt::Result {
    windows.sort_by_key(|window| window.start);
    let mut offset = 0;
    for window in windows {
        let first = window.start.0;
        let last = first.saturating_add(window.len - 1);
        write!(out, "  {first:016x}-{last:016x} (prio 0, ")?;
        match (window.is_ram, offset) {
            (false, _) => write!(out, "i/o): {}", window.what)?,
            (true, 0) => write!(out, "ram): {RAM}")?,
            (true, offset) => write!(out, "ram): {RAM} @{offset:016x}")?,
        }
        if window.is_ram {
            offset += window.len;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PhysAddr;

    fn window(start: u64, len: u64, what: &str) -> Window {
        Window {
            start: PhysAddr(start),
            len,
            what: what.to_owned(),
            is_ram: what == "RAM",
        }
    }

    #[test]
    fn pieces_of_ram_have_their_places() {
        let ports = vec![window(0x3f8, 8, "UART")];
        let memory = vec![
            window(0x1_0000_0000, 0x1000, "RAM"),
            window(0xd000_0000, 0x200, "disk"),
            window(0, 0x8000_0000, "RAM"),
        ];
        let mut text = String::new();
        write_mtree(&mut text, ports, memory, 2).unwrap();
        assert_eq!(
            text,
            "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n\
             \x20 00000000000003f8-00000000000003ff (prio 0, i/o): UART\n\
             \n\
             FlatView #1\n AS \"memory\", root: system\n\
             \x20AS \"cpu-memory-0\", root: system\n AS \"cpu-memory-1\", root: system\n\
             \x20Root memory region: system\n\
             \x20 0000000000000000-000000007fffffff (prio 0, ram): pc.ram\n\
             \x20 00000000d0000000-00000000d00001ff (prio 0, i/o): disk\n\
             \x20 0000000100000000-0000000100000fff (prio 0, ram): pc.ram @0000000080000000\n\
             \n"
        );
    }
}
