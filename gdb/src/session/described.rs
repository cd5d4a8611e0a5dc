//! What gdb is told that the vCPUs are, and when that has changed.
//!
//! gdb reads the target description when it attaches, and never again by itself;
//! `unset tdesc filename` has it read once more. It keeps one architecture for all
//! vCPUs. The first read of a connection is answered so that a session lasts: by
//! x86-64 where gdb has, or is about to get, symbols of a 64-bit program, even if
//! that has yet to leave the 32-bit code that it begins with. Under a description
//! of 32 bits gdb could not go on in 64-bit code. Whoever reads again wants to see
//! the vCPU as it is.
//!
//! gdb 18 reads it twice when it attaches, before and behind the executable's name.
//! The same answer is due as long as it has read no register under the last one.

use gdbstub::target::ext::target_description_xml_override::TargetDescriptionXmlOverride;
use gdbstub::target::{TargetError, TargetResult};

use super::Session;
use super::base::refused;
use crate::arch::{Architecture, Description, Registers, efer};
use crate::linux::copy_from;
use crate::target::VcpuId;

/// What gdb knows of the vCPUs' architecture, and what it is to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Described {
    /// What gdb has read last; its registers are numbered by it.
    now: Description,
    /// gdb has read it.
    read: bool,
    /// gdb has read registers by it, or the user has had a wish since: it is settled.
    used: bool,
    /// What the user wants gdb to read, whatever the vCPU runs.
    wanted: Option<Architecture>,
    /// The user has been told that a vCPU runs this, and not what gdb believes.
    told: Option<Architecture>,
}

impl Session<'_> {
    /// The registers as gdb knows them.
    pub(crate) fn description(&self) -> Description {
        self.described.get().now
    }

    /// What gdb is to read from now on; `None` for what the vCPU is.
    pub(crate) fn want_architecture(&mut self, wanted: Option<Architecture>) {
        let described = self.described.get_mut();
        described.wanted = wanted;
        described.used = true;
    }

    /// What the user wants gdb to read.
    pub(crate) fn wanted_architecture(&self) -> Option<Architecture> {
        self.described.get().wanted
    }

    /// Before a client comes: one that never reads a description knows x86-64.
    pub(super) fn forget_description(&mut self) {
        let mut described = Described::default();
        if let Ok(registers) = self.machine.registers(VcpuId(0)) {
            described.now.set = registers.vectors.set;
        }
        self.described.set(described);
    }

    /// gdb reads registers.
    pub(super) fn use_description(&self) -> Description {
        let mut described = self.described.get();
        described.used = true;
        self.described.set(described);
        described.now
    }

    /// Tells the user, once, that `vcpu` runs other code than gdb believes.
    pub(super) fn compare_description(&mut self, vcpu: VcpuId) {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return;
        };
        let runs = Architecture::of(&registers);
        let described = self.described.get_mut();
        let believed = described.now.architecture;
        if runs == believed {
            described.told = None;
        } else if described.told.replace(runs) != Some(runs) && described.read {
            self.notice(format!(
                "{vcpu} runs {} code, gdb has {}: \"unset tdesc filename\" has it look again",
                runs.name(),
                believed.name()
            ));
        }
    }

    /// What gdb, which reads the description now, is to know.
    fn describe_anew(&self) -> crate::target::Result<Description> {
        let registers = self.machine.registers(self.looked_at())?;
        let old = self.described.get();
        let architecture = match old.wanted {
            Some(wanted) => wanted,
            None if !old.read => self.lasting(&registers),
            None if old.used => Architecture::of(&registers),
            None => old.now.architecture,
        };
        let now = Description {
            architecture,
            // Of all vCPUs: they have the same CPUID.
            set: registers.vectors.set,
        };
        self.described.set(Described {
            now,
            read: true,
            used: false,
            told: None,
            ..old
        });
        Ok(now)
    }

    /// What a session can live with until its end.
    fn lasting(&self, registers: &Registers) -> Architecture {
        let long = registers.efer & efer::LMA != 0;
        let symbols = self.machine.symbols();
        if long || symbols.is_some_and(|file| file.is_64_bit()) {
            Architecture::X86_64
        } else {
            Architecture::of(registers)
        }
    }
}

impl TargetDescriptionXmlOverride for Session<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let description = match offset {
            0 => self.describe_anew().map_err(refused)?,
            _ => self.description(),
        };
        let length = length.min(buf.len());
        let xml = description.xml();
        Ok(copy_from(xml.as_bytes(), offset, &mut buf[..length]))
    }
}
