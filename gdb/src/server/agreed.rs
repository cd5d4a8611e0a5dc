//! Settings that hold for all of a connection.

/// The client's packets that count for all later ones.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    /// The last packet of each kind, by [`Agreed::KINDS`].
    last: [Option<Vec<u8>>; 3],
}

impl Agreed {
    /// In the order in which clients say them.
    const KINDS: [&[u8]; 3] = [b"qSupported:", b"Hc", b"Hg"];

    pub fn note(&mut self, body: &[u8]) {
        for (last, kind) in self.last.iter_mut().zip(Self::KINDS) {
            if body.starts_with(kind) {
                *last = Some(body.to_vec());
            }
        }
    }

    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.last.iter().flatten().map(Vec::as_slice)
    }
}
