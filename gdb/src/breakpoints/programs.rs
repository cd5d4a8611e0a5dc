//! What gdb's breakpoints have evaluated here at a hit: conditions, and commands in
//! place of a stop (`dprintf`).
//!
//! Both come with the packet that inserts the breakpoint (gdb manual, "Packets", `Z0`)
//! and go with the breakpoint. gdb sends them again at every resume.

use std::collections::BTreeMap;

use crate::address::VirtAddr;
use crate::packet::{Malformed, expression, hex};

/// Most expressions of one breakpoint: each of them may take its time at a hit.
const MAX_EXPRESSIONS: usize = 256;

/// Most bytes of all expressions.
const MAX_CODE: usize = 4 << 20;

/// The two kinds of breakpoint that can have a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Software,
    Hardware,
}

/// A breakpoint of gdb's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub addr: VirtAddr,
    pub kind: Kind,
}

/// Agent expressions.
type Expressions = Vec<Box<[u8]>>;

/// The expressions of one breakpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    /// The hit counts if one of them is not 0, or if there is none.
    pub conditions: Expressions,
    /// They are run at a hit that counts. gdb is told of hits only if there is none.
    pub commands: Expressions,
}

/// The breakpoint cannot have its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("it has {0} conditions and commands, more than {MAX_EXPRESSIONS}")]
    Expressions(usize),
    #[error("all conditions and commands are {0} bytes long, more than {MAX_CODE}")]
    Code(usize),
}

impl Program {
    /// Parses the packet that inserts a breakpoint: `Z` KIND `,` ADDR `,` SIZE
    /// [`;` CONDITIONS] [`;cmds:` PERSISTENT `,` COMMANDS]. `None` if it is another packet.
    pub fn parse(body: &[u8]) -> Option<Result<(Place, Self), Malformed>> {
        let kind = match body.split_at_checked(3)?.0 {
            b"Z0," => Kind::Software,
            b"Z1," => Kind::Hardware,
            _ => return None,
        };
        let text = std::str::from_utf8(&body[3..]).map_err(|_| Malformed);
        Some(text.and_then(|text| parse(kind, text)))
    }

    fn len(&self) -> usize {
        let all = self.conditions.iter().chain(&self.commands);
        all.map(|code| code.len()).sum()
    }
}

fn parse(kind: Kind, text: &str) -> Result<(Place, Program), Malformed> {
    let mut parts = text.split(';');
    let addr = parts.next().and_then(|place| place.split(',').next());
    let addr = VirtAddr(hex(addr)?);
    let mut program = Program::default();
    for part in parts {
        match part.strip_prefix("cmds:") {
            // A command goes with its breakpoint, however long it is to last.
            Some(commands) => {
                let (_persistent, list) = commands.split_once(',').ok_or(Malformed)?;
                expressions(list, &mut program.commands)?;
            }
            None => expressions(part, &mut program.conditions)?,
        }
    }
    Ok((Place { addr, kind }, program))
}

/// Adds expressions, each with an `X` before it.
fn expressions(mut text: &str, list: &mut Expressions) -> Result<(), Malformed> {
    while !text.is_empty() {
        let (code, rest) = expression(text.strip_prefix('X').ok_or(Malformed)?)?;
        list.push(code.into());
        text = rest;
    }
    Ok(())
}

/// The programs by breakpoint.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    programs: BTreeMap<Place, Program>,
    /// Bytes of code.
    size: usize,
}

impl Programs {
    /// Gives a breakpoint a program, in place of the one that it had.
    ///
    /// # Errors
    /// It is too much; the breakpoint has none then.
    pub fn set(&mut self, place: Place, program: Program) -> Result<(), ProgramError> {
        self.remove(place);
        let count = program.conditions.len() + program.commands.len();
        let size = self.size + program.len();
        if count > MAX_EXPRESSIONS {
            return Err(ProgramError::Expressions(count));
        }
        if size > MAX_CODE {
            return Err(ProgramError::Code(size));
        }
        if count > 0 {
            self.size = size;
            self.programs.insert(place, program);
        }
        Ok(())
    }

    pub fn remove(&mut self, place: Place) {
        if let Some(removed) = self.programs.remove(&place) {
            self.size -= removed.len();
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn get(&self, place: Place) -> Option<&Program> {
        self.programs.get(&place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place {
        addr: VirtAddr(0x1003),
        kind: Kind::Software,
    };

    fn program(packet: &str) -> Program {
        let parsed = Program::parse(packet.as_bytes()).unwrap().unwrap();
        assert_eq!(parsed.0, PLACE);
        parsed.1
    }

    #[test]
    fn packets_bring_conditions_and_commands() {
        assert_eq!(program("Z0,1003,1"), Program::default());
        let code = |code: &[u8]| Box::<[u8]>::from(code);
        let both = program("Z0,1003,1;X3,220127X1,27;cmds:1,X2,2227");
        assert_eq!(both.conditions, [code(&[0x22, 1, 0x27]), code(&[0x27])]);
        assert_eq!(both.commands, [code(&[0x22, 0x27])]);
        let commands = program("Z0,1003,1;cmds:0,X1,27");
        assert_eq!((commands.conditions.len(), commands.commands.len()), (0, 1));
        let hardware = Program::parse(b"Z1,10,1;X1,27").unwrap().unwrap().0;
        assert_eq!(
            (hardware.addr, hardware.kind),
            (VirtAddr(0x10), Kind::Hardware)
        );
        for nonsense in [
            "Z0,",
            "Z0,x,1",
            "Z0,1003,1;Y",
            "Z0,1003,1;X",
            "Z0,1003,1;X2,27",
            "Z0,1003,1;X1,2g",
            "Z0,1003,1;cmds:0",
            "Z1,1003,1;X1,27;cmds:0,27",
        ] {
            let refused = Program::parse(nonsense.as_bytes());
            assert_eq!(refused, Some(Err(Malformed)), "{nonsense}");
        }
        for other in ["Z2,1003,1", "z0,1003,1", "Z", "", "m0,1"] {
            assert_eq!(Program::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn there_is_so_much_and_no_more() {
        let mut programs = Programs::default();
        let with = |count: usize, len: usize| Program {
            conditions: vec![vec![0x27; len].into(); count],
            commands: Vec::new(),
        };
        let refused = programs.set(PLACE, with(MAX_EXPRESSIONS + 1, 1));
        assert_eq!(refused, Err(ProgramError::Expressions(MAX_EXPRESSIONS + 1)));
        for _ in 0..2 {
            assert_eq!(programs.set(PLACE, with(1, MAX_CODE)), Ok(()));
        }
        let other = Place {
            kind: Kind::Hardware,
            ..PLACE
        };
        let refused = programs.set(other, with(1, 1));
        assert_eq!(refused, Err(ProgramError::Code(MAX_CODE + 1)));
        programs.remove(PLACE);
        assert_eq!(programs.set(other, with(1, 1)), Ok(()));
        assert_eq!(programs.set(other, Program::default()), Ok(()));
        assert_eq!((programs.get(other), programs.size), (None, 0));
    }

    proptest! {
        #[test]
        fn no_packet_panics(rest in "[0-9a-fX,;:cmds\u{e9}]{0,60}") {
            let _ = Program::parse(format!("Z0,{rest}").as_bytes());
        }
    }
}
