//! gdb's `monitor` commands.
//!
//! A command is a row of [`COMMANDS`]: its words, its help and its function. The
//! longest row whose words begin the line runs, with the rest of the line.

mod architecture;
mod args;
mod break_if;
mod devices;
mod dump;
mod error;
mod explain;
mod info;
mod lx;
mod machine;
mod mappings;
mod memory;
mod near;
mod packed;
mod paging;
mod qemu;
mod registers;
mod trap;
mod written;

use std::convert::Infallible;
use std::fmt::Write;

use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd};
use host_io::errors::chain;

use self::args::Output;
use self::error::MonitorError;

use crate::session::Session;

/// One `monitor` command.
struct Command {
    /// Its words, separated by one space.
    name: &'static str,
    /// Its arguments.
    arguments: &'static str,
    help: &'static str,
    run: fn(&mut Session<'_>, &str, Output<'_>) -> Result<(), MonitorError>,
}

/// Most characters of an unknown command that are shown.
const MAX_SHOWN: usize = 60;

const COMMANDS: &[Command] = &[
    Command {
        name: "architecture",
        arguments: "[auto|i8086|i386|x86-64]",
        help: "what gdb is told that the vCPUs are, when it next looks",
        run: architecture::architecture,
    },
    Command {
        name: "break-if",
        arguments: "[ADDR off|[cr3=N] [cpl=N] [vcpu=N] [hits=N]]",
        help: "when gdb's breakpoints at an address stop the guest",
        run: break_if::break_if,
    },
    Command {
        name: "dump",
        arguments: "[-z] FILE",
        help: "write RAM and registers to a file, for crash, drgn and gdb; -z: compressed",
        run: dump::dump,
    },
    Command {
        name: "exits",
        arguments: "[COUNT]",
        help: "the last exits of each vCPU to the VMM, with where and when",
        run: machine::recent_exits,
    },
    Command {
        name: "explain",
        arguments: "[DEVICE]",
        help: "why a virtio device hangs: its queues, its backend, and what is wrong",
        run: explain::explain,
    },
    Command {
        name: "gva2gpa",
        arguments: "ADDR",
        help: "the physical address of a virtual one, in QEMU's format",
        run: paging::gva2gpa,
    },
    Command {
        name: "help",
        arguments: "",
        help: "list the commands",
        run: help,
    },
    Command {
        name: "info breakpoints",
        arguments: "",
        help: "what is planted in the guest, and what holds the hardware slots",
        run: info::breakpoints,
    },
    Command {
        name: "info cpus",
        arguments: "",
        help: "the same as info vcpus, under QEMU's name",
        run: info::vcpus,
    },
    Command {
        name: "info devices",
        arguments: "",
        help: "the virtio devices and their backends",
        run: devices::devices,
    },
    Command {
        name: "info exits",
        arguments: "",
        help: "how often each vCPU has left the guest, by reason",
        run: machine::exit_counters,
    },
    Command {
        name: "info host",
        arguments: "",
        help: "what this host's KVM traps, and so what gdb can do",
        run: info::host,
    },
    Command {
        name: "info kvm",
        arguments: "",
        help: "that the guest runs on KVM",
        run: info::kvm,
    },
    Command {
        name: "info mem",
        arguments: "[vcpu=N]",
        help: "what is mapped, in QEMU's format; see pagetable",
        run: mappings::mem,
    },
    Command {
        name: "info mtree",
        arguments: "[-f]",
        help: "the guest-physical map: RAM, holes, devices; and ports",
        run: machine::mtree,
    },
    Command {
        name: "info queues",
        arguments: "",
        help: "where each virtqueue lies and how full it is",
        run: devices::queues,
    },
    Command {
        name: "info registers",
        arguments: "[vcpu=N]",
        help: "a vCPU with its descriptor tables and debug registers, in QEMU's format",
        run: registers::registers,
    },
    Command {
        name: "info vcpus",
        arguments: "",
        help: "where each vCPU is",
        run: info::vcpus,
    },
    Command {
        name: "lx dmesg",
        arguments: "[COUNT]",
        help: "Linux: the kernel's log; with a number, that many records",
        run: lx::dmesg,
    },
    Command {
        name: "lx modules",
        arguments: "",
        help: "Linux: loaded modules, with gdb's commands for their symbols",
        run: lx::modules,
    },
    Command {
        name: "lx ps",
        arguments: "",
        help: "Linux: processes and their threads",
        run: lx::ps,
    },
    Command {
        name: "lx version",
        arguments: "",
        help: "Linux: which kernel runs, where, and how that is known",
        run: lx::version,
    },
    Command {
        name: "lx wait",
        arguments: "",
        help: "Linux: stop where the kernel has found its place, at the next continue",
        run: lx::wait,
    },
    Command {
        name: "mmio read",
        arguments: "ADDR [SIZE]",
        help: "read 1, 2, 4 or 8 bytes of a device, as the guest would",
        run: machine::mmio_read,
    },
    Command {
        name: "msr",
        arguments: "[NAME|NUMBER [VALUE]]",
        help: "read, write or list model-specific registers",
        run: machine::msr,
    },
    Command {
        name: "nmi",
        arguments: "[VCPU]",
        help: "send a non-maskable interrupt",
        run: machine::nmi,
    },
    Command {
        name: "pagetable",
        arguments: "[FIRST [LAST]]",
        help: "what is mapped, as ranges of equal rights",
        run: paging::pagetable,
    },
    Command {
        name: "pagewalk",
        arguments: "ADDR",
        help: "every page-table entry on the way of a virtual address",
        run: paging::pagewalk,
    },
    Command {
        name: "pause-devices",
        arguments: "[on|off]",
        help: "let the devices stand still while the guest is stopped",
        run: devices::pause,
    },
    Command {
        name: "phys",
        arguments: "[on|off]",
        help: "let gdb's own memory commands take physical addresses",
        run: memory::phys,
    },
    Command {
        name: "reset",
        arguments: "",
        help: "reset the guest, which stays stopped",
        run: machine::reset,
    },
    Command {
        name: "translate",
        arguments: "ADDR",
        help: "where a virtual address leads, with which rights",
        run: paging::translate,
    },
    Command {
        name: "trap",
        arguments: "[off | mmio|pio FIRST [LAST] | kick DEVICE [QUEUE] | msr MSR]",
        help: "stop when the guest touches a device",
        run: trap::trap,
    },
    Command {
        name: "vq",
        arguments: "DEVICE [QUEUE] [all]",
        help: "what a virtqueue holds, from guest memory",
        run: devices::vq,
    },
    Command {
        name: "written",
        arguments: "DEVICE [on|off]",
        help: "the pages that a device's backend has written, once noted",
        run: written::written,
    },
    Command {
        name: "xp",
        arguments: "[/COUNT[b|h|w|g]] ADDR",
        help: "show physical memory",
        run: memory::xp,
    },
];

/// Those that front ends get which take the stub for QEMU's, in place of the others of the same
/// words.
const QEMU_COMMANDS: &[Command] = &[
    Command {
        name: "gpa2hva",
        arguments: "ADDR",
        help: "where a debugger of this process finds physical memory",
        run: qemu::gpa2hva,
    },
    Command {
        name: "info mtree",
        arguments: "[-f]",
        help: "the ports and the guest-physical map, in QEMU's format",
        run: qemu::mtree,
    },
    Command {
        name: "info registers",
        arguments: "[-a|vcpu=N]",
        help: "a vCPU, or all, in QEMU's format",
        run: qemu::registers,
    },
    Command {
        name: "xp",
        arguments: "[/COUNT[b|h|w|g]] ADDR",
        help: "show physical memory, in QEMU's format",
        run: qemu::xp,
    },
];

fn help(_: &mut Session<'_>, _: &str, out: Output<'_>) -> Result<(), MonitorError> {
    list(COMMANDS.iter(), out)
}

fn list<'a>(
    commands: impl Iterator<Item = &'a Command>,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    for command in commands {
        writeln!(out, "{:<28} {}", command.usage(), command.help)?;
    }
    Ok(())
}

impl Command {
    fn usage(&self) -> String {
        [self.name, self.arguments].join(" ").trim_end().to_owned()
    }
}

impl MonitorCmd for Session<'_> {
    fn handle_monitor_cmd(
        &mut self,
        line: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Infallible> {
        let _ = write!(out, "{}", self.take_printed());
        for notice in self.take_notices() {
            // ConsoleOutput never fails.
            let _ = writeln!(out, "{notice}");
        }
        if let Err(error) = run(self, line, &mut out) {
            let _ = writeln!(out, "{}", chain(&error));
        }
        Ok(())
    }
}

fn run(session: &mut Session<'_>, line: &[u8], out: Output<'_>) -> Result<(), MonitorError> {
    let line = with_format_apart(&String::from_utf8_lossy(line));
    let words: Vec<_> = line.split_whitespace().collect();
    let of_qemu = match session.reads_as_qemu() {
        true => find(QEMU_COMMANDS, &words),
        false => None,
    };
    let Some((command, arguments)) = of_qemu.or_else(|| find(COMMANDS, &words)) else {
        return list_below(&words, out);
    };
    if session.is_running() {
        return Err(MonitorError::Running);
    }
    // gdb waits for a command as long as it takes.
    if command.name.starts_with("lx ") {
        session.guest.linux.finish_search(&session.guest.machine);
    }
    match (command.run)(session, &arguments.join(" "), out) {
        Err(error) if error.is_usage() => {
            writeln!(out, "{error}")?;
            Ok(writeln!(out, "usage: monitor {}", command.usage())?)
        }
        result => result,
    }
}

/// `xp /4x` for `xp/4x`, as gdb's own `x` may be written.
fn with_format_apart(line: &str) -> String {
    let line = line.trim_start();
    let first = line.split_whitespace().next().unwrap_or_default();
    match first.find('/') {
        Some(slash) => [&line[..slash], " ", &line[slash..]].concat(),
        None => line.to_owned(),
    }
}

/// The one of `commands` that `words` begin with, and the words after it.
fn find<'a>(
    commands: &'static [Command],
    words: &'a [&'a str],
) -> Option<(&'static Command, &'a [&'a str])> {
    commands
        .iter()
        .filter_map(|command| {
            let mut rest = words;
            for word in command.name.split(' ') {
                rest = rest.split_first().filter(|(first, _)| **first == word)?.1;
            }
            Some((command, rest))
        })
        .min_by_key(|(_, rest)| rest.len())
}

/// The commands that begin with `words`, or, if there are none, those that the user
/// may have meant.
fn list_below(words: &[&str], out: Output<'_>) -> Result<(), MonitorError> {
    let begins = |command: &&Command| {
        let mut name = command.name.split(' ');
        words.iter().all(|word| name.next() == Some(*word))
    };
    let mut below = COMMANDS.iter().filter(begins).peekable();
    if below.peek().is_some() {
        return list(below, out);
    }
    let command: String = words.join(" ").chars().take(MAX_SHOWN).collect();
    let near = near::names(&command, COMMANDS.iter().map(|command| command.name));
    let near = match near.is_empty() {
        true => String::new(),
        false => format!("; near it is {}", near.join(", ")),
    };
    Err(MonitorError::Unknown { command, near })
}

#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod monitor_test;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_their_words() {
        let name = |words: &[&str]| {
            find(COMMANDS, words).map(|(command, rest)| (command.name, rest.len()))
        };
        assert_eq!(name(&["info", "vcpus"]), Some(("info vcpus", 0)));
        assert_eq!(name(&["info", "vcpus", "1"]), Some(("info vcpus", 1)));
        assert_eq!(name(&["help"]), Some(("help", 0)));
        assert_eq!(name(&["xp", "/4b", "0"]), Some(("xp", 2)));
        for words in [&["info"][..], &["info", "x"], &["vcpus"], &[]] {
            assert_eq!(name(words), None, "{words:?}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_each_command_finds_itself() {
        for commands in [COMMANDS, QEMU_COMMANDS] {
            assert!(commands.is_sorted_by_key(|command| command.name));
            for command in commands {
                let words: Vec<_> = command.name.split(' ').collect();
                assert_eq!(find(commands, &words).unwrap().0.name, command.name);
            }
        }
    }
}
