//! Translates packets that gdbstub does not take into packets that it does.
//!
//! gdb says `vCont` with a thread for each step. Other clients use the packets that
//! `vCont` replaced, `c` and `s` with the thread of `Hc`, and `vCont;s` for every
//! thread; gdbstub takes some of them for errors, and does not know those with a
//! signal. Nor does it know `qSupported` without a feature, by which front ends learn
//! the features of a stub that gdb is attached to already.

use std::num::NonZeroUsize;

/// A thread as a client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    One(NonZeroUsize),
    /// `-1`, and `0`, which leaves the choice to the stub.
    All,
}

/// The threads that a client has chosen by `H` packets.
#[derive(Debug, Default)]
pub(super) struct Dialect {
    /// `Hc`: whom `c` and `s` mean.
    resumed: Option<NonZeroUsize>,
    /// `Hg`: who is stepped where `Hc` names nobody.
    general: Option<NonZeroUsize>,
}

/// The treatment of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is well as it is.
    Plainly,
    /// This says the same.
    Otherwise(Vec<u8>),
    /// It has no meaning here.
    Nonsense,
}

impl Dialect {
    /// How gdbstub takes `body`. There are `threads` of them, and the one that
    /// stopped last is `stopped`.
    pub fn translate(&mut self, body: &[u8], threads: usize, stopped: usize) -> Said {
        let Ok(text) = std::str::from_utf8(body) else {
            return Said::Plainly;
        };
        let current = self.general(stopped);
        match text.split_at_checked(1) {
            Some(("H", _)) => self.choose(text),
            Some(("c", "")) | Some(("C", _)) => self.resume(match self.resumed {
                Some(thread) => format!("vCont;c:{thread:x}"),
                None => "vCont;c".to_owned(),
            }),
            Some(("s", "")) | Some(("S", _)) => self.resume(match self.resumed {
                Some(thread) => format!("vCont;s:{thread:x}"),
                None => format!("vCont;s:{current:x};c"),
            }),
            // A feature that nothing depends on.
            _ if text == "qSupported" => Said::Otherwise(b"qSupported:xmlRegisters=i386".to_vec()),
            // To resume elsewhere: clients write the register.
            Some(("c" | "s", _)) => Said::Nonsense,
            _ if text.starts_with("vCont;") => self.resume_each(text, threads),
            _ => Said::Plainly,
        }
    }

    /// The thread whose registers and memory are meant.
    pub fn general(&self, stopped: usize) -> usize {
        self.general.map_or(stopped, NonZeroUsize::get)
    }

    /// Notes the thread of an `H` packet. Memory is read of one thread.
    fn choose(&mut self, text: &str) -> Said {
        let Some((operation, thread)) = text.split_at_checked(2) else {
            return Said::Nonsense;
        };
        let one = match Thread::parse(thread) {
            Some(Thread::One(thread)) => Some(thread),
            Some(Thread::All) => None,
            None => return Said::Nonsense,
        };
        match operation {
            "Hc" => self.resumed = one,
            "Hg" if thread == "-1" => return Said::Nonsense,
            "Hg" => self.general = one,
            _ => return Said::Nonsense,
        }
        Said::Plainly
    }

    /// A client that chooses no thread means the one that stops, from now on.
    fn resume(&mut self, packet: String) -> Said {
        self.general = None;
        Said::Otherwise(packet.into_bytes())
    }

    /// Names every thread in an action to step that names none.
    fn resume_each(&mut self, text: &str, threads: usize) -> Said {
        self.general = None;
        let mut named = Vec::new();
        let mut packet = "vCont".to_owned();
        for action in text.split(';').skip(1) {
            let (kind, thread) = match action.split_once(':') {
                Some((kind, thread)) => (kind, Thread::parse(thread)),
                None => (action, Some(Thread::All)),
            };
            match (kind.as_bytes().first(), thread) {
                (Some(b'c' | b'C' | b's' | b'S' | b'r'), Some(Thread::One(thread))) => {
                    named.push(thread.get());
                    packet.push_str(&format!(";{kind}:{thread:x}"));
                }
                (Some(b'c' | b'C'), Some(Thread::All)) => packet.push_str(&format!(";{kind}")),
                (Some(b's' | b'S' | b'r'), Some(Thread::All)) => {
                    for thread in (1..=threads).filter(|thread| !named.contains(thread)) {
                        packet.push_str(&format!(";{kind}:{thread:x}"));
                    }
                }
                _ => return Said::Nonsense,
            }
        }
        Said::Otherwise(packet.into_bytes())
    }
}

impl Thread {
    /// With a process (`p1.2`) or without; there is one process.
    fn parse(text: &str) -> Option<Self> {
        let thread = match text.strip_prefix('p') {
            Some(both) => both.split_once('.').map_or("-1", |(_, thread)| thread),
            None => text,
        };
        if thread == "-1" {
            return Some(Thread::All);
        }
        let number = usize::from_str_radix(thread, 16).ok()?;
        Some(NonZeroUsize::new(number).map_or(Thread::All, Thread::One))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The treatment of the last of `packets`, with three threads of which the
    /// second has stopped.
    fn said(packets: &[&str]) -> Said {
        let mut dialect = Dialect::default();
        let mut last = Said::Nonsense;
        for packet in packets {
            last = dialect.translate(packet.as_bytes(), 3, 2);
        }
        last
    }

    fn otherwise(packet: &str) -> Said {
        Said::Otherwise(packet.as_bytes().to_vec())
    }

    #[test]
    fn a_step_of_nobody_is_one_of_the_thread_that_stopped() {
        assert_eq!(said(&["s"]), otherwise("vCont;s:2;c"));
        assert_eq!(said(&["Hc-1", "s"]), otherwise("vCont;s:2;c"));
        assert_eq!(said(&["Hc0", "S05"]), otherwise("vCont;s:2;c"));
        assert_eq!(said(&["Hg3", "s"]), otherwise("vCont;s:3;c"));
        assert_eq!(said(&["Hg3", "s", "s"]), otherwise("vCont;s:2;c"));
    }

    #[test]
    fn a_thread_chosen_moves_alone() {
        assert_eq!(said(&["Hc1", "s"]), otherwise("vCont;s:1"));
        assert_eq!(said(&["Hcp1.3", "c"]), otherwise("vCont;c:3"));
        assert_eq!(said(&["Hc3", "Hc-1", "C05"]), otherwise("vCont;c"));
    }

    #[test]
    fn a_step_of_all_names_each() {
        assert_eq!(said(&["vCont;s"]), otherwise("vCont;s:1;s:2;s:3"));
        assert_eq!(said(&["vCont;s:p1.-1"]), otherwise("vCont;s:1;s:2;s:3"));
        assert_eq!(said(&["vCont;c:2;s"]), otherwise("vCont;c:2;s:1;s:3"));
    }

    #[test]
    fn what_gdb_says_means_what_it_did() {
        assert_eq!(said(&["vCont;s:p1.2;c"]), otherwise("vCont;s:2;c"));
        assert_eq!(
            said(&["vCont;r10,20:p1.1;c:p1.-1"]),
            otherwise("vCont;r10,20:1;c")
        );
        for packet in ["vCont?", "Hgp1.2", "Hg0", "m0,10"] {
            assert_ne!(said(&[packet]), Said::Nonsense, "{packet}");
        }
        assert_eq!(said(&["vCont?"]), Said::Plainly);
    }

    #[test]
    fn features_can_be_asked_for_without_any() {
        assert_eq!(
            said(&["qSupported"]),
            otherwise("qSupported:xmlRegisters=i386")
        );
        assert_eq!(said(&["qSupported:a+"]), Said::Plainly);
    }

    #[test]
    fn nonsense_is_said_to_be_so() {
        for packet in [
            "H",
            "Hg",
            "Hg-1",
            "Hx1",
            "Hgzz",
            "vCont;t",
            "vCont;",
            "vCont;s:q",
            "c1000",
        ] {
            assert_eq!(said(&[packet]), Said::Nonsense, "{packet}");
        }
    }
}
