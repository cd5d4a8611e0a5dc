//! Packets by which gdb and LLDB ask about the machine, and which gdbstub does not know.
//!
//! `qHostInfo`, `qProcessInfo` and `qMemoryRegionInfo` are LLDB's ("GDB Remote Protocol
//! Extensions" of its documentation), `qSearch:memory` is gdb's ("General Query Packets").

use crate::packet::{Malformed, hex};

/// A packet's question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inquiry {
    /// `qHostInfo`
    Host,
    /// `qProcessInfo`
    Process,
    /// `qMemoryRegionInfo:` without an address, by which LLDB learns that there are answers.
    Regions,
    /// `qMemoryRegionInfo:` ADDR
    Region(u64),
    /// `qSearch:memory:` ADDR `;` LENGTH `;` PATTERN
    Search {
        addr: u64,
        len: u64,
        pattern: Vec<u8>,
    },
}

impl Inquiry {
    /// The question that `body` asks, if it is one of these.
    pub fn parse(body: &[u8]) -> Option<Result<Self, Malformed>> {
        if let Some(search) = body.strip_prefix(b"qSearch:memory:") {
            return Some(parse_search(search));
        }
        let text = std::str::from_utf8(body).ok()?;
        match text {
            "qHostInfo" => Some(Ok(Inquiry::Host)),
            "qProcessInfo" => Some(Ok(Inquiry::Process)),
            "qMemoryRegionInfo" | "qMemoryRegionInfo:" => Some(Ok(Inquiry::Regions)),
            _ => {
                let addr = text.strip_prefix("qMemoryRegionInfo:")?;
                Some(hex(Some(addr)).map(Inquiry::Region))
            }
        }
    }
}

fn parse_search(search: &[u8]) -> Result<Inquiry, Malformed> {
    let mut parts = search.splitn(3, |byte| *byte == b';');
    let mut number = || hex(parts.next().and_then(|part| std::str::from_utf8(part).ok()));
    let (addr, len) = (number()?, number()?);
    let pattern = unescaped(parts.next().ok_or(Malformed)?)?;
    match pattern.is_empty() {
        true => Err(Malformed),
        false => Ok(Inquiry::Search { addr, len, pattern }),
    }
}

/// Binary data of a packet.
fn unescaped(data: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut plain = Vec::with_capacity(data.len());
    let mut bytes = data.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'}' => bytes.next().ok_or(Malformed)? ^ 0x20,
            byte => byte,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_known_by_their_names() {
        for (packet, inquiry) in [
            ("qHostInfo", Some(Ok(Inquiry::Host))),
            ("qProcessInfo", Some(Ok(Inquiry::Process))),
            ("qProcessInfoPID:1", None),
            ("qMemoryRegionInfo:", Some(Ok(Inquiry::Regions))),
            ("qMemoryRegionInfo:fF", Some(Ok(Inquiry::Region(0xff)))),
            ("qMemoryRegionInfo:x", Some(Err(Malformed))),
            ("qSearch:memory:1;2", Some(Err(Malformed))),
            ("qSearch:memory:1;2;", Some(Err(Malformed))),
            ("qSearch:memory:1;2;}", Some(Err(Malformed))),
            ("qSearch:memory:1;;a", Some(Err(Malformed))),
            ("qSearch:memory", None),
        ] {
            assert_eq!(Inquiry::parse(packet.as_bytes()), inquiry, "{packet}");
        }
    }

    #[test]
    fn a_pattern_is_any_bytes() {
        let search = Inquiry::Search {
            addr: 0x10,
            len: 0x20,
            pattern: b";\xff#}".to_vec(),
        };
        let packet = b"qSearch:memory:10;20;;\xff}\x03}\x5d";
        assert_eq!(Inquiry::parse(packet), Some(Ok(search)));
    }
}
