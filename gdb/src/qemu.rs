//! Packets of QEMU's stub by which pwndbg and gef know an emulated machine from a
//! process.
//!
//! Both explore the memory of a process by writing it back, so they have to be told
//! that this is none. (QEMU: gdbstub/gdbstub.c.)

/// The properties of single steps: supported, without interrupts, with stopped
/// timers. Here they always have all three, where the host can.
const SSTEP_BITS: u64 = 7;

/// One such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// `qqemu.Supported`
    Supported,
    /// `qqemu.sstepbits`
    StepBits,
    /// `qqemu.sstep`
    Step,
    /// `Qqemu.sstep=`; whether it is as steps are.
    SetStep(bool),
    /// `qqemu.PhyMemMode`
    Physical,
    /// `Qqemu.PhyMemMode:`
    SetPhysical(bool),
    /// `qOffsets` of gdb itself.
    Offsets,
    /// `qOffsets` of a front end, which wants to know whether this is QEMU's user mode.
    /// Nothing says that it is not.
    IsUserMode,
}

impl Query {
    /// Whether it is a packet of QEMU's alone, for which nobody asks another stub.
    pub fn is_qemus(self) -> bool {
        !matches!(self, Self::Offsets | Self::IsUserMode)
    }
}

/// Tells the packets of one client apart.
///
/// gdb itself asks for the offsets when it attaches, right behind its choice of a thread
/// (`Hc-1` of gdb 13, `Hg0` of gdb 18). Front ends ask by its `maintenance packet`, and
/// may do so before.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    /// The client has asked what only front ends ask.
    front_end: bool,
    /// Its last packet was an `H`.
    chose_thread: bool,
}

impl Queries {
    /// The packet that `body` is, if it is one of these.
    pub fn take(&mut self, body: &[u8]) -> Option<Query> {
        let attaches = std::mem::replace(&mut self.chose_thread, body.starts_with(b"H"));
        if body == b"qOffsets" {
            return Some(match self.front_end && !attaches {
                true => Query::IsUserMode,
                false => Query::Offsets,
            });
        }
        let query = parse(body);
        self.front_end |= query.is_some();
        query
    }
}

/// QEMU takes some of them with either letter.
fn parse(body: &[u8]) -> Option<Query> {
    let body = std::str::from_utf8(body).ok()?;
    let name = body
        .strip_prefix("qqemu.")
        .or_else(|| body.strip_prefix("Qqemu."))?;
    let query = match name.split_once([':', '=']) {
        Some(("sstep", flags)) => {
            let flags = u64::from_str_radix(flags.trim_start_matches("0x"), 16);
            Query::SetStep(flags == Ok(SSTEP_BITS))
        }
        Some(("PhyMemMode", "0")) => Query::SetPhysical(false),
        Some(("PhyMemMode", "1")) => Query::SetPhysical(true),
        Some(_) => return None,
        None => match name {
            "Supported" => Query::Supported,
            "sstepbits" => Query::StepBits,
            "sstep" => Query::Step,
            "PhyMemMode" => Query::Physical,
            _ => return None,
        },
    };
    Some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(packets: &[&str]) -> Option<Query> {
        let mut queries = Queries::default();
        let mut last = None;
        for packet in packets {
            last = queries.take(packet.as_bytes());
        }
        last
    }

    #[test]
    fn packets_are_known_by_their_names() {
        for (packet, query) in [
            ("Qqemu.sstepbits", Some(Query::StepBits)),
            ("qqemu.sstepbits", Some(Query::StepBits)),
            ("qqemu.sstep", Some(Query::Step)),
            ("Qqemu.sstep=0x7", Some(Query::SetStep(true))),
            ("Qqemu.sstep:7", Some(Query::SetStep(true))),
            ("Qqemu.sstep=1", Some(Query::SetStep(false))),
            ("Qqemu.sstep=", Some(Query::SetStep(false))),
            ("qqemu.Supported", Some(Query::Supported)),
            ("qqemu.PhyMemMode", Some(Query::Physical)),
            ("Qqemu.PhyMemMode:1", Some(Query::SetPhysical(true))),
            ("Qqemu.PhyMemMode:2", None),
            ("Qqemu.", None),
            ("qqemuSupported", None),
            ("qSupported", None),
            ("Qqemu.\u{e9}", None),
        ] {
            assert_eq!(last(&[packet]), query, "{packet}");
        }
        assert_eq!(Queries::default().take(b"Qqemu.\xff"), None);
    }

    #[test]
    fn gdb_gets_the_offsets_and_a_front_end_nothing() {
        let attach = ["qSupported", "Hc-1", "qOffsets"];
        assert_eq!(last(&attach), Some(Query::Offsets));
        assert_eq!(last(&["qOffsets"]), Some(Query::Offsets));
        let front_end = ["Qqemu.sstepbits", "qOffsets"];
        assert_eq!(last(&front_end), Some(Query::IsUserMode));
        // One that asks while gdb attaches.
        for chosen in ["Hc-1", "Hg0"] {
            let attach = ["qSupported", chosen, "qOffsets"];
            assert_eq!(
                last(&[&front_end[..], &attach].concat()),
                Some(Query::Offsets)
            );
        }
        assert_eq!(
            last(&[&attach[..], &front_end].concat()),
            Some(Query::IsUserMode)
        );
    }
}
