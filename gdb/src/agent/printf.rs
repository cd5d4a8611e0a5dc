//! The text of a `printf`: C's format string, as it stands in the user's command,
//! with its values (gdb manual, "Bytecode Descriptions").

/// Most bytes of one text.
const MAX_TEXT: usize = 4096;

/// The text cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("%{0} is not supported in a format: use one of %d %i %u %o %x %X %c %s %p")]
    Conversion(char),
    #[error("the format ends within a conversion")]
    Truncated,
    #[error("the format has more conversions than there are values")]
    Values,
    #[error("the string at {0:#x} cannot be read")]
    Memory(u64),
    #[error("the text has more than {MAX_TEXT} bytes")]
    TooLong,
}

type Result<T> = std::result::Result<T, FormatError>;

/// Reads a string of at most so many bytes.
type Strings<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

/// The text of `format` with its `values`; `strings` reads those of `%s`.
///
/// # Errors
/// A conversion is not supported or has no value, or the text would be too long.
pub(super) fn format(
    format: &[u8],
    values: &[u64],
    strings: impl Fn(u64, usize) -> Option<Vec<u8>>,
) -> Result<String> {
    let mut rest = format;
    let mut values = values.iter().copied();
    let mut text = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' => text.push(escaped(&mut rest)),
            b'%' if rest.first() == Some(&b'%') => {
                rest = &rest[1..];
                text.push(b'%');
            }
            b'%' => {
                let spec = Spec::parse(&mut rest)?;
                let value = values.next().ok_or(FormatError::Values)?;
                spec.write(value, &mut text, &strings)?;
            }
            other => text.push(other),
        }
        if text.len() > MAX_TEXT {
            return Err(FormatError::TooLong);
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The byte that an escape stands for, from behind the backslash.
fn escaped(rest: &mut &[u8]) -> u8 {
    let Some((&letter, after)) = rest.split_first() else {
        return b'\\';
    };
    if matches!(letter, b'0'..=b'7') {
        return number(rest, 8, 3);
    }
    *rest = after;
    match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'e' => 0x1b,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'x' => number(rest, 16, 2),
        other => other,
    }
}

/// The low byte of a number of at most so many digits.
fn number(rest: &mut &[u8], radix: u32, most: usize) -> u8 {
    let mut value = 0u32;
    for _ in 0..most {
        let digit = rest.first().and_then(|&d| char::from(d).to_digit(radix));
        let Some(digit) = digit else { break };
        value = value * radix + digit;
        *rest = &rest[1..];
    }
    value as u8
}

/// One conversion: `%` FLAGS WIDTH `.` PRECISION LENGTH LETTER.
#[derive(Debug, Default)]
struct Spec {
    left: bool,
    zeros: bool,
    alternate: bool,
    /// Stands before a number that is not negative.
    plus: Option<u8>,
    width: usize,
    precision: Option<usize>,
    bits: u32,
    letter: u8,
}

impl Spec {
    /// Parses it from behind the `%`.
    fn parse(rest: &mut &[u8]) -> Result<Self> {
        let mut spec = Self {
            bits: 32,
            ..Self::default()
        };
        while let Some(flag) = rest.first() {
            match flag {
                b'-' => spec.left = true,
                b'0' => spec.zeros = true,
                b'#' => spec.alternate = true,
                b'+' => spec.plus = Some(b'+'),
                b' ' => spec.plus = spec.plus.or(Some(b' ')),
                _ => break,
            }
            *rest = &rest[1..];
        }
        spec.width = decimal(rest)?;
        if let Some(after) = rest.strip_prefix(b".") {
            *rest = after;
            spec.precision = Some(decimal(rest)?);
        }
        loop {
            let (&letter, after) = rest.split_first().ok_or(FormatError::Truncated)?;
            *rest = after;
            spec.bits = match (letter, spec.bits) {
                (b'h', 16) => 8,
                (b'h', _) => 16,
                (b'l' | b'q' | b'j' | b'z' | b't', _) => 64,
                _ => {
                    spec.letter = letter;
                    return Ok(spec);
                }
            };
        }
    }

    fn write(&self, value: u64, text: &mut Vec<u8>, strings: &Strings<'_>) -> Result<()> {
        let unused = 64 - self.bits;
        let unsigned = value << unused >> unused;
        let signed = (value << unused).cast_signed() >> unused;
        match self.letter {
            b'd' | b'i' => {
                let sign = match signed < 0 {
                    true => Some(b'-'),
                    false => self.plus,
                };
                let sign: Vec<u8> = sign.into_iter().collect();
                self.number(text, &sign, &signed.unsigned_abs().to_string());
            }
            b'u' => self.number(text, b"", &unsigned.to_string()),
            b'o' => self.number(text, self.mark(unsigned, b"0"), &format!("{unsigned:o}")),
            b'x' => self.number(text, self.mark(unsigned, b"0x"), &format!("{unsigned:x}")),
            b'X' => self.number(text, self.mark(unsigned, b"0X"), &format!("{unsigned:X}")),
            b'p' => self.number(text, b"0x", &format!("{value:x}")),
            b'c' => self.pad(text, b"", &[value as u8], false),
            b's' => {
                let limit = self.precision.unwrap_or(MAX_TEXT);
                let string = strings(value, limit).ok_or(FormatError::Memory(value))?;
                self.pad(text, b"", &string, false);
            }
            other => return Err(FormatError::Conversion(char::from(other))),
        }
        Ok(())
    }

    /// The prefix of a number in the alternate form.
    fn mark(&self, value: u64, prefix: &'static [u8]) -> &'static [u8] {
        match self.alternate && value != 0 {
            true => prefix,
            false => b"",
        }
    }

    fn number(&self, text: &mut Vec<u8>, prefix: &[u8], digits: &str) {
        let least = self.precision.unwrap_or(1);
        let digits = format!("{digits:0>least$}");
        let zeros = self.zeros && !self.left && self.precision.is_none();
        self.pad(text, prefix, digits.as_bytes(), zeros);
    }

    fn pad(&self, text: &mut Vec<u8>, prefix: &[u8], body: &[u8], zeros: bool) {
        let missing = self.width.saturating_sub(prefix.len() + body.len());
        let fill = |byte, wanted: bool| std::iter::repeat_n(byte, if wanted { missing } else { 0 });
        text.extend(fill(b' ', !self.left && !zeros));
        text.extend(prefix);
        text.extend(fill(b'0', zeros));
        text.extend(body);
        text.extend(fill(b' ', self.left));
    }
}

/// A width or a precision; 0 if there is none.
fn decimal(rest: &mut &[u8]) -> Result<usize> {
    let mut value = 0;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        value = value * 10 + usize::from(digit - b'0');
        if value > MAX_TEXT {
            return Err(FormatError::TooLong);
        }
        *rest = after;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(form: &str, values: &[u64]) -> Result<String> {
        format(form.as_bytes(), values, |addr, limit| {
            (addr == 1).then(|| b"string"[..limit.min(6)].to_vec())
        })
    }

    #[test]
    fn conversions_are_those_of_c() {
        for (format, value, expected) in [
            ("%d|", -5i64 as u64, "-5|"),
            ("%d|", 0xffff_ffff, "-1|"),
            ("%ld|", 0xffff_ffff, "4294967295|"),
            ("%hhd|", 0x1ff, "-1|"),
            ("%hu|", 0x1_ffff, "65535|"),
            ("%5i|", 7, "    7|"),
            ("%-5d|", 7, "7    |"),
            ("%05d|", -7i64 as u64, "-0007|"),
            ("%+d|", 7, "+7|"),
            ("% d|", 7, " 7|"),
            ("%.3d|", 7, "007|"),
            ("%x|", 0xabc, "abc|"),
            ("%#lX|", 0xabc, "0XABC|"),
            ("%#x|", 0, "0|"),
            ("%#o|", 8, "010|"),
            ("%p|", 0x1000, "0x1000|"),
            ("%c|", 0x41, "A|"),
            ("%s|", 1, "string|"),
            ("%.3s|", 1, "str|"),
            ("%8s|", 1, "  string|"),
            ("%llu|", u64::MAX, "18446744073709551615|"),
        ] {
            assert_eq!(text(format, &[value]).as_deref(), Ok(expected), "{format}");
        }
        assert_eq!(text("100%%", &[]).as_deref(), Ok("100%"));
    }

    #[test]
    fn escapes_are_those_of_c() {
        assert_eq!(text("a\\tb\\n\\\"\\\\", &[]).as_deref(), Ok("a\tb\n\"\\"));
        assert_eq!(text("\\101\\x42\\e", &[]).as_deref(), Ok("AB\x1b"));
        assert_eq!(text("\\", &[]).as_deref(), Ok("\\"));
    }

    #[test]
    fn what_cannot_be_printed_is_refused() {
        assert_eq!(text("%f", &[1]), Err(FormatError::Conversion('f')));
        assert_eq!(text("%*d", &[1, 2]), Err(FormatError::Conversion('*')));
        assert_eq!(text("%d %d", &[1]), Err(FormatError::Values));
        assert_eq!(text("%l", &[1]), Err(FormatError::Truncated));
        assert_eq!(text("%s", &[2]), Err(FormatError::Memory(2)));
        assert_eq!(text("%5000d", &[1]), Err(FormatError::TooLong));
        assert_eq!(text("%4000d%4000d", &[1, 2]), Err(FormatError::TooLong));
    }

    proptest! {
        #[test]
        fn no_format_panics_or_grows(form: Vec<u8>, values: Vec<u64>) {
            if let Ok(text) = format(&form, &values, |_, limit| Some(vec![0xff; limit])) {
                // Bytes that are no text take three each.
                prop_assert!(text.len() <= 3 * MAX_TEXT);
            }
        }
    }
}
