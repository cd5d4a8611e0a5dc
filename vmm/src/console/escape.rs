//! `Ctrl-A` on the terminal, as QEMU's users know it.

const CTRL_A: u8 = 0x01;

/// What the typed bytes mean.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// For the guest.
    Pass(Vec<u8>),
    Quit,
}

/// Remembers a `Ctrl-A` that came at the end of what was read.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// `Ctrl-A x` quits, `Ctrl-A Ctrl-A` sends one, anything else behind a
    /// `Ctrl-A` is passed on with it.
    pub fn filter(&mut self, bytes: &[u8]) -> Action {
        let mut pass = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match (std::mem::take(&mut self.pending), byte) {
                (true, b'x') => return Action::Quit,
                (true, CTRL_A) => pass.push(CTRL_A),
                (true, other) => pass.extend([CTRL_A, other]),
                (false, CTRL_A) => self.pending = true,
                (false, other) => pass.push(other),
            }
        }
        Action::Pass(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(bytes: &[u8]) -> Action {
        Action::Pass(bytes.to_vec())
    }

    #[test]
    fn ctrl_a_x_quits_even_when_typed_slowly() {
        assert_eq!(Escape::default().filter(b"ab\x01xcd"), Action::Quit);
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"\x01"), pass(b""));
        assert_eq!(escape.filter(b"x"), Action::Quit);
    }

    #[test]
    fn everything_else_reaches_the_guest() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"x\x01\x01x\x01b"), pass(b"x\x01x\x01b"));
        assert_eq!(escape.filter(b"\x03x"), pass(b"\x03x"));
    }
}
