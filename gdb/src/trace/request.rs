//! Packets about tracepoints that the session answers by itself, because gdbstub
//! 0.7.10 does not know them or answers them without the essential part (gdb
//! manual, "Tracepoint Packets").

use crate::agent::Number;
use crate::packet::{Malformed, hex};

/// A request of gdb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `QTDV`: a trace state variable, from behind the colon.
    DefineVariable(String),
    /// `qTV`: the value of a variable.
    Value(Number),
    /// `qTfV`: the first of all variables.
    Variables,
    /// `QTDPsrc`: a piece of a tracepoint's source, from behind the colon.
    Source(String),
    /// `qTfP`: the first of all tracepoints.
    Tracepoints,
    /// `qTsV` and `qTsP`: the next piece of the list.
    Next,
    /// `qTBuffer`: a piece of the frames, as trace files have them.
    Buffer { offset: u64, len: u64 },
    /// `QTDisconnected`: whether the trace outlives its gdb.
    Disconnected(bool),
    /// `QTSave`: a trace file, to be written here.
    Save,
}

impl Request {
    /// Whether gdb takes text for its user before the answer. What it asks for when it
    /// attaches is not so: it would take the text for the answer.
    pub fn takes_text(&self) -> bool {
        !matches!(self, Self::Tracepoints | Self::Variables | Self::Next)
    }

    /// `None` if it is another packet.
    pub fn parse(body: &[u8]) -> Option<Result<Self, Malformed>> {
        let text = String::from_utf8_lossy(body);
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (&*text, None),
        };
        Some(match name {
            "QTDV" => rest
                .ok_or(Malformed)
                .map(|rest| Self::DefineVariable(rest.to_owned())),
            "qTV" => number(rest).map(Self::Value),
            "qTfV" => Ok(Self::Variables),
            "QTDPsrc" => rest
                .ok_or(Malformed)
                .map(|rest| Self::Source(rest.to_owned())),
            "qTfP" => Ok(Self::Tracepoints),
            "qTsV" | "qTsP" => Ok(Self::Next),
            "qTBuffer" => rest.ok_or(Malformed).and_then(buffer),
            "QTDisconnected" => match hex(rest) {
                Ok(0) => Ok(Self::Disconnected(false)),
                Ok(1) => Ok(Self::Disconnected(true)),
                _ => Err(Malformed),
            },
            "QTSave" => Ok(Self::Save),
            _ => return None,
        })
    }
}

fn number(text: Option<&str>) -> Result<Number, Malformed> {
    Number::try_from(hex(text)?).map_err(|_| Malformed)
}

/// OFFSET `,` LENGTH.
fn buffer(text: &str) -> Result<Request, Malformed> {
    let (offset, len) = text.split_once(',').ok_or(Malformed)?;
    Ok(Request::Buffer {
        offset: hex(Some(offset))?,
        len: hex(Some(len))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_by_its_name() {
        let known = |body: &str| Request::parse(body.as_bytes());
        let definition = Request::DefineVariable("1:0:0:61".to_owned());
        assert_eq!(known("QTDV:1:0:0:61"), Some(Ok(definition)));
        assert_eq!(known("qTV:1f"), Some(Ok(Request::Value(0x1f))));
        assert_eq!(known("qTfV"), Some(Ok(Request::Variables)));
        assert_eq!(known("qTsV"), Some(Ok(Request::Next)));
        assert_eq!(known("qTfP"), Some(Ok(Request::Tracepoints)));
        assert_eq!(known("qTsP"), Some(Ok(Request::Next)));
        assert_eq!(known("QTSave:2f61"), Some(Ok(Request::Save)));
        let source = Request::Source("1:2:at:0:1:61".to_owned());
        assert_eq!(known("QTDPsrc:1:2:at:0:1:61"), Some(Ok(source)));
        let on = Request::Disconnected(true);
        assert_eq!(known("QTDisconnected:1"), Some(Ok(on)));
        let off = Request::Disconnected(false);
        assert_eq!(known("QTDisconnected:0"), Some(Ok(off)));
        let buffer = Request::Buffer {
            offset: 0x10,
            len: 0x7d0,
        };
        assert_eq!(known("qTBuffer:10,7d0"), Some(Ok(buffer)));
        for (request, takes) in [("qTfP", false), ("qTsV", false), ("qTV:1", true)] {
            let request = known(request).and_then(Result::ok);
            assert_eq!(request.map(|request| request.takes_text()), Some(takes));
        }
        for nonsense in [
            "QTDisconnected",
            "QTDisconnected:2",
            "qTBuffer",
            "qTBuffer:1",
            "qTBuffer:g,1",
            "QTDPsrc",
            "QTDV",
            "qTV",
            "qTV:",
            "qTV:+1",
            "qTV:10000",
        ] {
            assert_eq!(known(nonsense), Some(Err(Malformed)), "{nonsense}");
        }
        for other in ["", "g", "qT", "qTStatus", "QTDP:1", "QTDVx:1", "\u{e9}"] {
            assert_eq!(known(other), None, "{other}");
        }
    }
}
