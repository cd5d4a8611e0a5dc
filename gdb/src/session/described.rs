//! The target description, as gdbstub asks for it.

use gdbstub::target::ext::target_description_xml_override::TargetDescriptionXmlOverride;
use gdbstub::target::{TargetError, TargetResult};

use super::Session;
use super::base::refused;
use super::guest::Guest;
use crate::address::VcpuId;
use crate::arch::{Architecture, Description, Registers, efer};
use crate::linux::copy_from;

impl Session<'_> {
    /// The registers as gdb knows them.
    pub(crate) fn description(&self) -> Description {
        self.described.now()
    }

    /// Sets the description that gdb reads from now on; `None` for the vCPU's own.
    pub(crate) fn want_architecture(&mut self, wanted: Option<Architecture>) {
        self.described.want(wanted);
    }

    /// The description that the user wants gdb to read.
    pub(crate) fn wanted_architecture(&self) -> Option<Architecture> {
        self.described.wanted()
    }

    /// Tells the user, once, that `vcpu` runs other code than gdb believes.
    pub(super) fn compare_description(&mut self, vcpu: VcpuId) {
        if let Ok(registers) = self.guest.machine.registers(vcpu)
            && let Some(text) = self.described.compare(vcpu, &registers)
        {
            self.notice(text);
        }
    }

    /// The description for gdb, which reads it now.
    fn describe_again(&self) -> crate::target::Result<Description> {
        let registers = self.guest.machine.registers(self.selection.looked_at())?;
        let lasting = self.guest.lasting_architecture(&registers);
        Ok(self.described.read(&registers, lasting))
    }
}

impl Guest<'_> {
    /// A description that a session can keep until its end.
    fn lasting_architecture(&self, registers: &Registers) -> Architecture {
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
            0 => self.describe_again().map_err(refused)?,
            _ => self.description(),
        };
        let length = length.min(buf.len());
        let xml = description.xml();
        Ok(copy_from(xml.as_bytes(), offset, &mut buf[..length]))
    }
}
