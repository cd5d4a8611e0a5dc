//! Packets about tracepoints that the session answers by itself, because gdbstub
//! 0.7.10 does not know them or leaves out of the answer what they are for (gdb
//! manual, "Tracepoint Packets").

use super::packet::{Malformed, hex};
use super::variables::Number;

/// What gdb asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `QTDV`: a trace state variable, from behind the colon.
    DefineVariable(String),
    /// `qTV`: what a variable is.
    Value(Number),
    /// `qTfV`: the first of all variables.
    Variables,
    /// `qTsV`: the next of what was asked for.
    Next,
}

impl Request {
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
            "qTsV" => Ok(Self::Next),
            _ => return None,
        })
    }
}

fn number(text: Option<&str>) -> Result<Number, Malformed> {
    Number::try_from(hex(text)?).map_err(|_| Malformed)
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
        for nonsense in ["QTDV", "qTV", "qTV:", "qTV:+1", "qTV:10000"] {
            assert_eq!(known(nonsense), Some(Err(Malformed)), "{nonsense}");
        }
        for other in ["", "g", "qT", "qTStatus", "QTDP:1", "QTDVx:1", "\u{e9}"] {
            assert_eq!(known(other), None, "{other}");
        }
    }
}
