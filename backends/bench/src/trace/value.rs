//! Named values out of a payload.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::escape::to_hex;

/// Bytes that are shown of a long field in a line of text.
const SHOWN: usize = 48;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    /// An address, a size or a set of bits: hexadecimal.
    Hex(u64),
    /// Bits by name.
    Bits(u64, Vec<String>),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Fields>),
}

/// In the order of the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(&'static str, Value)>);

impl Fields {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, name: &'static str, value: Value) {
        self.0.push((name, value));
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Bits(bits, names) if names.is_empty() => write!(f, "{bits:#x}"),
            Self::Bits(bits, names) => write!(f, "{bits:#x} ({})", names.join("|")),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) if is_long_and_empty(bytes) => {
                write!(f, "{} zeros", bytes.len())
            }
            Self::Bytes(bytes) => match bytes.get(..SHOWN) {
                Some(first) if bytes.len() > SHOWN => {
                    write!(f, "{}… ({} bytes)", to_hex(first), bytes.len())
                }
                _ => f.write_str(&to_hex(bytes)),
            },
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| format!("{{{item}}}")).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// As GET_CONFIG sends it.
fn is_long_and_empty(bytes: &[u8]) -> bool {
    bytes.len() > size_of::<u64>() && bytes.iter().all(|byte| *byte == 0)
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, value)) in self.0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            // Readers of JSON may keep 53 bits of a number.
            Self::Hex(number) => serializer.collect_str(&format_args!("{number:#x}")),
            Self::Bits(_, names) => names.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_str(&to_hex(bytes)),
            Self::List(items) => items.serialize(serializer),
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
