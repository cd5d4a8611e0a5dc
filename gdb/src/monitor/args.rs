//! The arguments of a command, and its output.

use std::fmt::Write;

use super::error::MonitorError;
use crate::address::{VcpuId, VirtAddr};
use crate::arch::Register;
use crate::session::Session;

/// The output of a command.
pub(super) type Output<'a> = &'a mut dyn Write;

/// The words behind a command's name.
pub(super) struct Words<'a> {
    words: Vec<&'a str>,
    next: usize,
}

impl<'a> Words<'a> {
    pub fn new(arguments: &'a str) -> Self {
        Self {
            words: arguments.split_whitespace().collect(),
            next: 0,
        }
    }

    /// The next word, which must be there.
    pub fn need(&mut self, what: &'static str) -> Result<&'a str, MonitorError> {
        self.optional().ok_or(MonitorError::Missing(what))
    }

    pub fn optional(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    /// The next word if it begins with `/`, without that.
    pub fn slash(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?.strip_prefix('/')?;
        self.next += 1;
        Some(word)
    }

    /// The last word, if there is one: `on` or `off`.
    pub fn on_off(&mut self) -> Result<Option<bool>, MonitorError> {
        let wanted = match self.optional() {
            Some("on") => Some(true),
            Some("off") => Some(false),
            None => None,
            Some(word) => return Err(MonitorError::OnOff(word.to_owned())),
        };
        self.end()?;
        Ok(wanted)
    }

    /// No word is left.
    pub fn end(&self) -> Result<(), MonitorError> {
        match self.words.get(self.next) {
            None => Ok(()),
            Some(_) => Err(MonitorError::TooMany(self.words[self.next..].join(" "))),
        }
    }

    /// Takes `vcpu=N` out, wherever it stands; else it is the vCPU that gdb looks at.
    pub fn vcpu(&mut self, session: &Session<'_>) -> Result<VcpuId, MonitorError> {
        let option = |word: &&str| word.starts_with("vcpu=");
        let Some(place) = self.words.iter().position(option) else {
            return Ok(session.selection.looked_at());
        };
        let word = self.words.remove(place);
        let count = session.guest.machine.vcpu_count();
        let number = word["vcpu=".len()..].parse().ok();
        match number.filter(|number| *number < count) {
            Some(number) => Ok(VcpuId(number)),
            None => Err(MonitorError::NoVcpu {
                found: word.to_owned(),
                last: count - 1,
            }),
        }
    }
}

/// For commands without arguments.
pub(super) fn no_argument(command: &'static str, arguments: &str) -> Result<(), MonitorError> {
    if arguments.is_empty() {
        return Ok(());
    }
    let found = arguments.to_owned();
    Err(MonitorError::Argument { command, found })
}

/// `[vcpu=N]` and nothing else.
pub(super) fn only_vcpu(session: &Session<'_>, arguments: &str) -> Result<VcpuId, MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    words.end()?;
    Ok(vcpu)
}

/// `[vcpu=N] ADDR`, a virtual address, and nothing else.
pub(super) fn vcpu_and_address(
    session: &Session<'_>,
    arguments: &str,
) -> Result<(VcpuId, VirtAddr), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let addr = number(session, vcpu, words.need("an address")?)?;
    words.end()?;
    Ok((vcpu, VirtAddr(addr)))
}

/// A number in decimal, in hexadecimal with 0x, or in a register as `$rip`.
pub(super) fn number(session: &Session<'_>, vcpu: VcpuId, text: &str) -> Result<u64, MonitorError> {
    if let Some(name) = text.strip_prefix('$') {
        return register(session, vcpu, name);
    }
    plain_number(text)
}

/// A number without registers.
pub(super) fn plain_number(text: &str) -> Result<u64, MonitorError> {
    let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // u64's own parser takes a sign.
    let digits = !text.contains('+');
    match parsed {
        Ok(number) if digits => Ok(number),
        _ => Err(MonitorError::Number(text.to_owned())),
    }
}

fn register(session: &Session<'_>, vcpu: VcpuId, name: &str) -> Result<u64, MonitorError> {
    let name = match name {
        "pc" => "rip",
        "sp" => "rsp",
        name => name,
    };
    let registers = session.guest.machine.registers(vcpu)?;
    let found = Register::all(registers.vectors.set)
        .find(|register| register.name() == name && register.size() <= 8)
        .ok_or_else(|| MonitorError::NoRegister(name.to_owned()))?;
    let mut value = [0; 8];
    value.copy_from_slice(&found.bytes(&registers)[..8]);
    Ok(u64::from_le_bytes(value))
}

/// A size in bytes, exact, in the largest unit that it is a multiple of.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes;
    let mut unit = 0;
    while size != 0 && size.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    format!("{size} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        let parse = |text| plain_number(text).ok();
        assert_eq!(parse("4096"), Some(4096));
        assert_eq!(parse("0xFFFFffff81000000"), Some(0xffff_ffff_8100_0000));
        for text in [
            "",
            "0x",
            "+1",
            "0x+1",
            "-1",
            "1f",
            "&jiffies",
            "0x1ffffffffffffffff",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_exact() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1000), "1000 bytes");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size((2 << 20) + 4096), "2052 KiB");
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size(1 << 62), "4194304 TiB");
    }
}
