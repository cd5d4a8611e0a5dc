//! Packets that must not reach gdbstub as they are.
//!
//! gdbstub 0.7.10 gives up at a `QTDP` packet with a condition, a memory range or
//! stepping actions, all of which gdb sends for common commands, and it cannot
//! announce conditions. Those of breakpoints it passes over. The session takes the
//! contents of these packets, and gdbstub, which frames and acknowledges, gets a
//! packet that makes it ask the session for the outcome. The session alone answers
//! packets that gdbstub does not know.

use crate::breakpoints::{Place, Program};
use crate::inquiry::Inquiry;
use crate::packet::{Malformed, hex};
use crate::trace::Request;

/// Stands for any definition: more actions for a tracepoint, and these are none.
pub(super) const NO_ACTIONS: &[u8] = b"QTDP:-00:0000000000000000:";

/// Announced beside what gdbstub announces: `x`, conditions, commands of breakpoints, `collect/s`, that the source
/// of tracepoints is kept, and that a trace may outlive its gdb.
pub(super) const FEATURES: &str = ";binary-upload+;ConditionalBreakpoints+;BreakpointCommands+;ConditionalTracepoints+;tracenz+;TracepointSource+;DisconnectedTracing+";

/// The treatment of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Nothing: gdbstub alone answers.
    Pass,
    /// A tracepoint's definition, from behind `QTDP:`. gdbstub gets [`NO_ACTIONS`].
    Define(String),
    /// A breakpoint, with what is to be evaluated at its hits; gdbstub gets it too.
    Breakpoint(Place, Program),
    /// `x`: memory, to be answered as it is. gdbstub knows `m` alone.
    Read { addr: u64, len: usize },
    /// `tstart`; gdbstub gets it too.
    Start,
    /// `qSupported`, likewise; its answer has to name [`FEATURES`] as well.
    Supported,
    /// A packet that the session answers.
    Ask(Request),
    /// Another one.
    Inquire(Inquiry),
    /// It makes no sense.
    Malformed,
}

impl Ahead {
    pub fn of(body: &[u8]) -> Self {
        if let Some(definition) = body.strip_prefix(b"QTDP:") {
            Ahead::Define(String::from_utf8_lossy(definition).into_owned())
        } else if let Some(range) = body.strip_prefix(b"x") {
            read(range).unwrap_or(Ahead::Malformed)
        } else if body == b"QTStart" {
            Ahead::Start
        } else if body.starts_with(b"qSupported") {
            Ahead::Supported
        } else if let Some(breakpoint) = Program::parse(body) {
            breakpoint.map_or(Ahead::Malformed, |(place, program)| {
                Ahead::Breakpoint(place, program)
            })
        } else if let Some(inquiry) = Inquiry::parse(body) {
            inquiry.map_or(Ahead::Malformed, Ahead::Inquire)
        } else {
            match Request::parse(body) {
                Some(Ok(request)) => Ahead::Ask(request),
                Some(Err(Malformed)) => Ahead::Malformed,
                None => Ahead::Pass,
            }
        }
    }
}

/// ADDR `,` LENGTH.
fn read(range: &[u8]) -> Option<Ahead> {
    let (addr, len) = std::str::from_utf8(range).ok()?.split_once(',')?;
    Some(Ahead::Read {
        addr: hex(Some(addr)).ok()?,
        len: usize::try_from(hex(Some(len)).ok()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_tracepoints_is_known_by_its_beginning() {
        let define = Ahead::Define("1:10:E:0:0-".to_owned());
        assert_eq!(Ahead::of(b"QTDP:1:10:E:0:0-"), define);
        assert_eq!(Ahead::of(b"QTStart"), Ahead::Start);
        assert_eq!(Ahead::of(b"qSupported:a+"), Ahead::Supported);
        assert_eq!(Ahead::of(b"qTV:1"), Ahead::Ask(Request::Value(1)));
        assert_eq!(Ahead::of(b"qTV:x"), Ahead::Malformed);
        let read = Ahead::Read { addr: 0x10, len: 4 };
        assert_eq!(Ahead::of(b"x10,4"), read);
        for nonsense in ["x", "x10", "x10,", "x,4", "x10,-4", "x10,4,"] {
            assert_eq!(Ahead::of(nonsense.as_bytes()), Ahead::Malformed);
        }
        assert_eq!(Ahead::of(b"Z0,x,1"), Ahead::Malformed);
        assert!(matches!(Ahead::of(b"Z0,10,1"), Ahead::Breakpoint(..)));
        for other in [&b"g"[..], b"QTinit", b"qS", b"qTStatus", b""] {
            assert_eq!(Ahead::of(other), Ahead::Pass);
        }
    }
}
