//! `Ctrl-A` on a terminal in raw mode, as QEMU's users know it.

const CTRL_A: u8 = 0x01;

/// Remembers a `Ctrl-A` that came at the end of what was typed.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// What the guest gets of `bytes`, or `None` for `Ctrl-A x`: quit. `Ctrl-A Ctrl-A` sends one;
    /// anything else behind a `Ctrl-A` is passed on with it.
    pub fn filter(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut pass = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            match (std::mem::take(&mut self.pending), byte) {
                (true, b'x') => return None,
                (true, CTRL_A) => pass.push(CTRL_A),
                (true, other) => pass.extend([CTRL_A, other]),
                (false, CTRL_A) => self.pending = true,
                (false, other) => pass.push(other),
            }
        }
        Some(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_quits_however_slowly_typed_and_all_else_passes() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"a\x01b\x01").unwrap(), b"a\x01b");
        assert_eq!(escape.filter(b"\x01c\x01").unwrap(), b"\x01c");
        assert_eq!(escape.filter(b"x"), None);
    }
}
