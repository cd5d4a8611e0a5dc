//! Definitions as gdb has sent them, for a gdb that reads them back.

use super::definition::DefinitionError;
use super::point::Point;
use crate::packet::{self, Malformed, hex};
use crate::target::VirtAddr;

/// A piece of a tracepoint's source, from behind `QTDPsrc:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub number: usize,
    pub addr: VirtAddr,
    text: String,
}

impl Source {
    /// Parses NUMBER `:` ADDRESS `:` KIND `:` START `:` LENGTH `:` TEXT. Only gdb
    /// uses its contents.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(packet: &str) -> Result<Self, DefinitionError> {
        let mut fields = packet.splitn(6, ':');
        let number = hex(fields.next())? as usize;
        let addr = VirtAddr(hex(fields.next())?);
        if !matches!(fields.next(), Some("at" | "cond" | "cmd")) {
            return Err(DefinitionError::Malformed);
        }
        hex(fields.next())?;
        hex(fields.next())?;
        packet::bytes(fields.next().ok_or(Malformed)?)?;
        let text = packet.to_owned();
        Ok(Self { number, addr, text })
    }

    /// As gdb reads it back.
    pub fn line(&self) -> String {
        format!("Z{}", self.text)
    }
}

impl Point {
    /// As gdb reads it back: NUMBER `:` ADDRESS `:` ENABLED `:` STEPS `:` PASSES, and
    /// the condition. What belongs to it comes behind.
    pub fn described(&self) -> String {
        let Self { number, addr, .. } = self;
        let enabled = if self.enabled { 'E' } else { 'D' };
        let (steps, passes) = (self.steps, self.pass_count);
        let condition = self.condition.as_ref().map(|code| {
            let bytes = packet::encoded(code);
            format!(":X{:x},{bytes}", code.len())
        });
        let condition = condition.unwrap_or_default();
        format!(
            "T{number:x}:{:x}:{enabled}:{steps:x}:{passes:x}{condition}",
            addr.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gdb_sends_comes_back_and_nonsense_does_not() {
        for packet in [
            "1:10004b:at:0:5:696e6e6572",
            "2:0:cmd:0:0:",
            "a:1:cond:3:1:61",
        ] {
            let source = Source::parse(packet).unwrap();
            assert_eq!(source.line(), format!("Z{packet}"));
        }
        for packet in [
            "",
            "1",
            "1:2",
            "1:2:at",
            "1:2:at:0",
            "1:2:at:0:1",
            "1:2:at:0:1:6",
            "1:2:at:0:1:6g",
            "1:2:at:+1:1:61",
            "1:2:at:0:1:61:62",
            "1:2:where:0:1:61",
            "x:2:at:0:1:61",
            "1:2:at:0:1:é",
        ] {
            let refused = Source::parse(packet);
            assert_eq!(refused, Err(DefinitionError::Malformed), "{packet}");
        }
    }
}
