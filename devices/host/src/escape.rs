//! `Ctrl-A` on a terminal in raw mode, as QEMU's users know it.

const CTRL_A: u8 = 0x01;

/// What `Ctrl-A h` shows.
pub const HELP: &str = "\
Ctrl-A x       quits
Ctrl-A h       shows this
Ctrl-A Ctrl-A  sends a Ctrl-A
before any other key Ctrl-A is sent with it";

/// What typed bytes mean.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// For the guest.
    pub pass: Vec<u8>,
    /// `Ctrl-A x`: what is behind it means nothing any more.
    pub quits: bool,
    /// `Ctrl-A h`, or `Ctrl-A ?`.
    pub asks_for_help: bool,
}

/// Remembers a `Ctrl-A` that came at the end of what was read.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// Takes bytes as they are typed.
    pub fn filter(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for &byte in bytes {
            match (std::mem::take(&mut self.pending), byte) {
                (true, b'x') => {
                    typed.quits = true;
                    return typed;
                }
                (true, b'h' | b'?') => typed.asks_for_help = true,
                (true, CTRL_A) => typed.pass.push(CTRL_A),
                (true, other) => typed.pass.extend([CTRL_A, other]),
                (false, CTRL_A) => self.pending = true,
                (false, other) => typed.pass.push(other),
            }
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_quits_even_when_typed_slowly() {
        assert!(Escape::default().filter(b"ab\x01xcd").quits);
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"\x01"), Typed::default());
        assert!(escape.filter(b"x").quits);
    }

    #[test]
    fn ctrl_a_h_helps_and_reaches_nobody() {
        for keys in [b"a\x01hb", b"a\x01?b"] {
            let typed = Escape::default().filter(keys);
            assert!(typed.asks_for_help && !typed.quits);
            assert_eq!(typed.pass, b"ab");
        }
    }

    #[test]
    fn everything_else_reaches_the_guest() {
        let mut escape = Escape::default();
        let mut pass = |keys: &[u8]| escape.filter(keys).pass;
        assert_eq!(pass(b"x\x01\x01x\x01bh?"), b"x\x01x\x01bh?");
        assert_eq!(pass(b"\x03x"), b"\x03x");
    }
}
