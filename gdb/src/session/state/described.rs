//! The architecture that gdb is told for the vCPUs, and when it has changed.
//!
//! gdb reads the target description when it attaches, and never again by itself;
//! `unset tdesc filename` has it read once more. It keeps one architecture for all
//! vCPUs. The first read of a connection is answered so that a session lasts: by
//! x86-64 where gdb has, or is about to get, symbols of a 64-bit program, even if
//! that has yet to leave the 32-bit code that it begins with. Under a description
//! of 32 bits gdb could not debug 64-bit code. A client that reads again wants to
//! see the vCPU as it is.
//!
//! gdb 18 reads it twice when it attaches, before and behind the executable's name.
//! The same answer is due as long as it has read no register under the last one.

use std::cell::Cell;

use crate::address::VcpuId;
use crate::arch::{Architecture, Description, Registers};

/// The architecture of the vCPUs as gdb knows it, and as it should know it.
///
/// It is behind a `Cell` because gdbstub reads registers and the description through a
/// shared reference.
#[derive(Debug, Default)]
pub(in crate::session) struct Described(Cell<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The description that gdb has read last; its registers are numbered by it.
    now: Description,
    /// gdb has read it.
    read: bool,
    /// gdb has read registers by it, or the user has had a wish since: it is settled.
    used: bool,
    /// The description that the user wants gdb to read, whatever the vCPU runs.
    wanted: Option<Architecture>,
    /// The user has been told that a vCPU runs this, and not what gdb believes.
    told: Option<Architecture>,
}

impl Described {
    /// The registers as gdb knows them.
    pub fn now(&self) -> Description {
        self.0.get().now
    }

    /// Sets the description that gdb reads from now on; `None` for the vCPU's own.
    pub fn want(&mut self, wanted: Option<Architecture>) {
        let state = self.0.get_mut();
        state.wanted = wanted;
        state.used = true;
    }

    /// The description that the user wants gdb to read.
    pub fn wanted(&self) -> Option<Architecture> {
        self.0.get().wanted
    }

    /// Before a client comes, which may never read it: such a one knows x86-64, and
    /// the vector registers that `registers` has.
    pub fn on_attach(&mut self, registers: Option<&Registers>) {
        let mut state = State::default();
        if let Some(registers) = registers {
            state.now.set = registers.vectors.set;
        }
        self.0.set(state);
    }

    /// gdb reads registers.
    pub fn use_now(&self) -> Description {
        let mut state = self.0.get();
        state.used = true;
        self.0.set(state);
        state.now
    }

    /// The notice, once, about a `vcpu` that runs other code than gdb believes.
    pub fn compare(&mut self, vcpu: VcpuId, registers: &Registers) -> Option<String> {
        let runs = Architecture::of(registers);
        let state = self.0.get_mut();
        let believed = state.now.architecture;
        if runs == believed {
            state.told = None;
            return None;
        }
        let is_new = state.told.replace(runs) != Some(runs);
        (is_new && state.read).then(|| {
            format!(
                "{vcpu} runs {} code, gdb has {}: \"unset tdesc filename\" has it look again",
                runs.name(),
                believed.name()
            )
        })
    }

    /// The description for gdb, which reads it now, of a vCPU with these
    /// registers; `lasting` is one that a session can keep until its end.
    pub fn read(&self, registers: &Registers, lasting: Architecture) -> Description {
        let old = self.0.get();
        let architecture = match old.wanted {
            Some(wanted) => wanted,
            None if !old.read => lasting,
            None if old.used => Architecture::of(registers),
            None => old.now.architecture,
        };
        let now = Description {
            architecture,
            // Of all vCPUs: they have the same CPUID.
            set: registers.vectors.set,
        };
        self.0.set(State {
            now,
            read: true,
            used: false,
            told: None,
            ..old
        });
        now
    }
}
