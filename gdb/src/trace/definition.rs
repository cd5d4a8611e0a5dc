//! The packet that defines a tracepoint, `QTDP` (gdb manual, "Tracepoint
//! Packets").

use crate::arch::{Description, Register};
use crate::packet::{Malformed, expression, hex};
use crate::target::VirtAddr;

/// Something to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// These registers.
    Registers(Vec<Register>),
    /// Memory at an address, or relative to a register by gdb's number.
    Memory {
        base: Option<usize>,
        offset: u64,
        len: u64,
    },
    /// The items of an agent expression.
    Expression(Vec<u8>),
}

/// Actions, and gdb's text for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actions {
    pub list: Vec<Action>,
    pub text: String,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub number: usize,
    pub addr: VirtAddr,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    New {
        enabled: bool,
        /// Instructions to step behind each hit.
        steps: u64,
        /// The hit that ends the trace; 0 for none.
        pass_count: u64,
        condition: Option<Vec<u8>>,
    },
    /// More for one that is there. From `stepping` on, all are for the steps behind
    /// a hit, those of later packets included.
    Actions {
        actions: Actions,
        stepping: Option<Actions>,
    },
}

/// The tracepoint cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("gdb's packet that defines a tracepoint is malformed")]
    Malformed,
    #[error("fast and static tracepoints are not supported: use trace")]
    Kind,
    #[error("there are too many tracepoints, or one collects too much: at most {0}")]
    TooMuch(usize),
    #[error("there is no such tracepoint")]
    Unknown,
}

type Result<T> = std::result::Result<T, DefinitionError>;

impl From<Malformed> for DefinitionError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Definition {
    /// Parses the packet behind `QTDP:`, from a gdb that has this description of the registers.
    ///
    /// # Errors
    /// It is malformed, or asks for something that is not supported.
    pub fn parse(packet: &str, description: Description) -> Result<Self> {
        // A `-` at the end announces another packet: these come one by one anyway.
        let packet = packet.strip_suffix('-').unwrap_or(packet);
        let (packet, extends) = match packet.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (packet, false),
        };
        let mut fields = packet.splitn(3, ':');
        let number = hex(fields.next())? as usize;
        let addr = VirtAddr(hex(fields.next())?);
        let rest = fields.next().ok_or(DefinitionError::Malformed)?;
        let content = if extends {
            divided(rest, description)?
        } else {
            new(rest)?
        };
        Ok(Self {
            number,
            addr,
            content,
        })
    }
}

/// ENABLED `:` STEPS `:` PASSES [`:` OPTION]…
fn new(text: &str) -> Result<Content> {
    let mut fields = text.split(':');
    let enabled = match fields.next() {
        Some("E") => true,
        Some("D") => false,
        _ => return Err(DefinitionError::Malformed),
    };
    let steps = hex(fields.next())?;
    let pass_count = hex(fields.next())?;
    let mut condition = None;
    for option in fields {
        let (bytes, rest) = match option.strip_prefix('X') {
            Some(rest) => expression(rest)?,
            None => return Err(DefinitionError::Kind),
        };
        if !rest.is_empty() {
            return Err(DefinitionError::Malformed);
        }
        condition = Some(bytes);
    }
    Ok(Content::New {
        enabled,
        steps,
        pass_count,
        condition,
    })
}

/// Actions, of which those behind the first `S` are for steps. It stands before the
/// letter of an action, where no digits can be.
fn divided(text: &str, description: Description) -> Result<Content> {
    let (before, behind) = match text.split_once('S') {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    };
    let parsed = |text: &str| -> Result<_> {
        Ok(Actions {
            list: actions(text, description)?,
            text: text.to_owned(),
        })
    };
    Ok(Content::Actions {
        actions: parsed(before)?,
        stepping: behind.map(parsed).transpose()?,
    })
}

/// Actions, one behind the other; each begins with its letter.
fn actions(mut text: &str, description: Description) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    while let Some(kind) = text.chars().next() {
        let rest = text.get(1..).unwrap_or_default();
        let (action, after) = match kind {
            'R' => {
                let (mask, after) = until_next(rest);
                (Action::Registers(registers(mask, description)?), after)
            }
            'M' => {
                let (range, after) = until_next(rest);
                (memory(range)?, after)
            }
            'X' => {
                let (bytes, after) = expression(rest)?;
                (Action::Expression(bytes), after)
            }
            _ => return Err(DefinitionError::Malformed),
        };
        actions.push(action);
        text = after;
    }
    Ok(actions)
}

/// Up to the letter of the next action, which is no hexadecimal digit.
fn until_next(text: &str) -> (&str, &str) {
    let end = text.find(['R', 'M', 'X']).unwrap_or(text.len());
    text.split_at(end)
}

/// The registers of a mask, whose last bit is register 0.
fn registers(mask: &str, description: Description) -> Result<Vec<Register>> {
    let mut registers = Vec::new();
    for (n, digit) in mask.bytes().rev().enumerate() {
        let digit = char::from(digit).to_digit(16);
        let digit = digit.ok_or(DefinitionError::Malformed)?;
        let set = (0..4).filter(|bit| digit >> bit & 1 != 0);
        registers.extend(set.filter_map(|bit| description.register(4 * n + bit)));
    }
    Ok(registers)
}

/// BASE `,` OFFSET `,` LENGTH; a base of -1 is none.
fn memory(text: &str) -> Result<Action> {
    let mut fields = text.split(',');
    let base = match fields.next() {
        Some("-1" | "FFFFFFFF" | "ffffffff") => None,
        register => Some(hex(register)? as usize),
    };
    Ok(Action::Memory {
        base,
        offset: hex(fields.next())?,
        len: hex(fields.next())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(packet: &str) -> Result<Content> {
        Definition::parse(packet, Description::default()).map(|definition| definition.content)
    }

    #[test]
    fn what_gdb_sends_is_understood() {
        let new = Definition::parse(
            "1:000000000010004b:E:0:3:X3,220127-",
            Description::default(),
        )
        .unwrap();
        assert_eq!((new.number, new.addr), (1, VirtAddr(0x10_004b)));
        let expected = Content::New {
            enabled: true,
            steps: 0,
            pass_count: 3,
            condition: Some(vec![0x22, 1, 0x27]),
        };
        assert_eq!(new.content, expected);
        let packet =
            "-1:10004b:R030001M-1,0000000000201000,8M7,FFFFFFFFFFFFFFF8,10X00000003,220527";
        let actions = vec![
            Action::Registers(vec![Register::Gpr(0), Register::Rip, Register::Eflags]),
            Action::Memory {
                base: None,
                offset: 0x20_1000,
                len: 8,
            },
            Action::Memory {
                base: Some(7),
                offset: (-8i64).cast_unsigned(),
                len: 16,
            },
            Action::Expression(vec![0x22, 5, 0x27]),
        ];
        let text = packet.strip_prefix("-1:10004b:").unwrap().to_owned();
        let expected = Content::Actions {
            actions: Actions {
                list: actions,
                text,
            },
            stepping: None,
        };
        assert_eq!(content(packet), Ok(expected));
    }

    #[test]
    fn steps_and_what_they_collect() {
        let new = content("1:10:E:1f4:0-");
        let Ok(Content::New { steps: 0x1f4, .. }) = new else {
            panic!("{new:?}");
        };
        let divided = |packet| match content(packet) {
            Ok(Content::Actions { actions, stepping }) => {
                let stepping = stepping.map(|stepping| (stepping.list, stepping.text));
                (actions.list.len(), stepping)
            }
            other => panic!("{other:?}"),
        };
        let rax = || Action::Registers(vec![Register::Gpr(0)]);
        let code = || Action::Expression(vec![0x27]);
        assert_eq!(divided("-1:10:R1X1,27"), (2, None));
        let stepping = Some((vec![rax(), code()], "R1X1,27".to_owned()));
        assert_eq!(divided("-1:10:SR1X1,27-"), (0, stepping));
        let stepping = Some((vec![code(), rax()], "X1,27R1".to_owned()));
        assert_eq!(divided("-1:10:R1SX1,27R1"), (1, stepping));
        assert_eq!(divided("-1:10:S"), (0, Some((vec![], String::new()))));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(content("1:10:E:0:0:F5"), Err(DefinitionError::Kind));
        assert_eq!(content("1:10:E:0:0:S"), Err(DefinitionError::Kind));
    }

    #[test]
    fn nonsense_is_refused() {
        for packet in [
            "",
            "-",
            "1",
            "1:2",
            "1:2:Q:0:0",
            "1:2:E:0",
            "1:2:E:0:+1",
            "1:2:E:0:0:X9,22",
            "1:2:E:0:0:X1,22ff",
            "1:11112222333344445:E:0:0",
            "-1:2:R0G",
            "-1:2:SSR1",
            "-1:2:X2,22S",
            "1:2:E:g:0",
            "-1:2:M1,2",
            "-1:2:X2,22é",
            "-1:2:Xffffffffffffffff,22",
            "-1:2:é",
            "-1:2:Q",
        ] {
            assert_eq!(content(packet), Err(DefinitionError::Malformed), "{packet}");
        }
    }
}
