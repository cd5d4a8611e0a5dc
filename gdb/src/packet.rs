//! The elements of packets that gdbstub does not parse.

/// The packet is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A number in hexadecimal digits, and nothing else.
pub(crate) fn hex(text: Option<&str>) -> Result<u64, Malformed> {
    let text = text.filter(|text| !text.starts_with('+'));
    let value = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    value.ok_or(Malformed)
}

/// Bytes, each in two digits.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, Malformed> {
    let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(Malformed);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Malformed);
    }
    let byte = |&[high, low]: &[u8; 2]| Ok((digit(high)? << 4 | digit(low)?) as u8);
    pairs.iter().map(byte).collect()
}

/// The length and the code of an agent expression, and the text behind it.
pub(crate) fn expression(text: &str) -> Result<(Vec<u8>, &str), Malformed> {
    let (len, rest) = text.split_once(',').ok_or(Malformed)?;
    let len = usize::try_from(hex(Some(len))?).ok();
    let digits = len.and_then(|len| len.checked_mul(2));
    let digits = digits.filter(|&digits| rest.is_char_boundary(digits));
    let (code, rest) = rest.split_at(digits.ok_or(Malformed)?);
    Ok((bytes(code)?, rest))
}

/// [`bytes`], the other way.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_are_digits_alone() {
        assert_eq!(hex(Some("00fF")), Ok(0xff));
        for text in [None, Some(""), Some("+1"), Some("-1"), Some("g")] {
            assert_eq!(hex(text), Err(Malformed), "{text:?}");
        }
        assert_eq!(bytes("00fF"), Ok(vec![0, 0xff]));
        assert_eq!(bytes(""), Ok(vec![]));
        for text in ["0", "0g", "+1", "é"] {
            assert_eq!(bytes(text), Err(Malformed), "{text}");
        }
        assert_eq!(encoded(&[0, 0xff]), "00ff");
    }
}
