//! How much `xp` shows.

/// This many units of this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    count: u64,
    unit: usize,
}

impl Format {
    /// `[COUNT][SIZE]`, where a letter x for hexadecimal may stand among them.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, letters) = text.split_at(digits);
        let count = match count {
            "" => 1,
            count => count.parse().ok()?,
        };
        let mut unit = 4;
        for letter in letters.chars() {
            unit = match letter {
                'b' => 1,
                'h' => 2,
                'w' => 4,
                'g' => 8,
                'x' => unit,
                _ => return None,
            };
        }
        Some(Self { count, unit })
    }

    /// Bytes of a unit.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// Bytes of all units, if they are no more than `most`.
    pub fn len(&self, most: u64) -> Option<usize> {
        let len = self.count.checked_mul(self.unit as u64);
        len.filter(|len| *len <= most)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_gdb() {
        let parse = |text| Format::parse(text).map(|format| (format.count, format.unit));
        for (text, format) in [
            ("", (1, 4)),
            ("0", (0, 4)),
            ("16", (16, 4)),
            ("8xg", (8, 8)),
            ("2gx", (2, 8)),
            ("bx", (1, 1)),
            ("65536b", (65536, 1)),
        ] {
            assert_eq!(parse(text), Some(format), "{text:?}");
        }
        for text in ["s", "4i", "-1", "99999999999999999999"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn lengths_have_an_end() {
        let len = |text| Format::parse(text).unwrap().len(64);
        assert_eq!(len("8g"), Some(64));
        assert_eq!(len("9g"), None);
        assert_eq!(len("18446744073709551615g"), None);
    }
}
