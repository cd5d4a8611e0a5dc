//! The kernel's types (CONFIG_DEBUG_INFO_BTF): where members of structures are.
//!
//! Format: Documentation/bpf/btf.rst of Linux. The data comes from guest memory,
//! so every offset and count is checked. The crates that parse BTF are under a licence
//! that this program cannot take (btf-rs), or trust their input (btf).

pub(crate) mod types;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// One type: where its fixed part is, in the data.
type Position = u32;

const MAGIC: u16 = 0xeb9f;
/// Length of the fixed part, `struct btf_type`.
const FIXED: usize = 12;
/// Length of `struct btf_member`.
const MEMBER: usize = 12;
/// Most types of a kernel; Debian's has 130,000.
const MAX_TYPES: usize = 1 << 21;
/// Longest name that is looked for, in bytes.
const MAX_NAME: usize = 128;
/// Most typedefs, and most structures without a name, around a type.
const MAX_DEPTH: u32 = 16;
/// Most members that are looked at for one name: structures without a name may be in
/// each other many times over.
const MAX_MEMBERS: u32 = 1 << 17;

/// Kinds of types (btf.rst, 2.2).
mod kind {
    pub const INT: u32 = 1;
    pub const POINTER: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FORWARD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNCTION: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// The types of one kernel, or of one of its modules.
pub(crate) struct Btf {
    /// Those of the kernel, which a module's refer to. The module's numbers and strings
    /// begin where the kernel's end.
    kernel: Option<Arc<Btf>>,
    data: Vec<u8>,
    /// By type number, less that of the first: number 0 is `void`.
    types: Vec<Position>,
    /// Structures and unions that have a name.
    named: HashMap<Vec<u8>, Position>,
    /// Where strings are in the data.
    strings: usize,
    strings_len: usize,
}

/// A kernel without a type or a member that is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's type information has no {0}")]
pub(crate) struct Missing(pub String);

impl Btf {
    /// `None` if the data is malformed.
    pub fn parse(data: Vec<u8>) -> Option<Self> {
        Self::parse_after(None, data)
    }

    /// The same of a module's.
    pub fn parse_module(kernel: Arc<Btf>, data: Vec<u8>) -> Option<Self> {
        Self::parse_after(Some(kernel), data)
    }

    fn parse_after(kernel: Option<Arc<Btf>>, data: Vec<u8>) -> Option<Self> {
        if data.get(..2)? != MAGIC.to_le_bytes() {
            return None;
        }
        let header = word(&data, 4)? as usize;
        let part = |at: usize| -> Option<(usize, usize)> {
            let start = header.checked_add(word(&data, at)? as usize)?;
            let end = start.checked_add(word(&data, at + 4)? as usize)?;
            (end <= data.len()).then_some((start, end))
        };
        let ((mut at, end), (strings, strings_end)) = (part(8)?, part(16)?);
        let mut types = Vec::new();
        while at < end && types.len() < MAX_TYPES {
            types.push(u32::try_from(at).ok()?);
            at = at.checked_add(FIXED + variable_part(word(&data, at + 4)?)?)?;
        }
        let mut btf = Self {
            kernel,
            data,
            types,
            named: HashMap::new(),
            strings,
            strings_len: strings_end - strings,
        };
        btf.named = btf.structures();
        (at == end).then_some(btf)
    }

    /// The numbers of the types that are here and not the kernel's.
    pub fn own(&self) -> RangeInclusive<u32> {
        let before = self.kernel.as_ref().map_or(0, |kernel| *kernel.own().end());
        before + 1..=before + self.types.len() as u32
    }

    /// Where this type is described, and its place there.
    fn place(&self, number: u32) -> Option<(&Self, usize)> {
        let own = self.own();
        match &self.kernel {
            Some(kernel) if number < *own.start() => kernel.place(number),
            _ => {
                let index = number.checked_sub(*own.start())?;
                Some((self, *self.types.get(index as usize)? as usize))
            }
        }
    }

    /// The structures by name; of several with one name the first.
    fn structures(&self) -> HashMap<Vec<u8>, Position> {
        let mut named = HashMap::new();
        for &position in &self.types {
            let at = position as usize;
            let info = word(&self.data, at + 4).unwrap_or_default();
            let name = self.name(word(&self.data, at).unwrap_or_default());
            if matches!(kind_of(info), kind::STRUCT | kind::UNION) && !name.is_empty() {
                named.entry(name.to_vec()).or_insert(position);
            }
        }
        named
    }

    /// Size of a structure in bytes.
    pub fn size(&self, structure: &str) -> Result<u64, Missing> {
        let found = self.structure(structure)?;
        let size = word(&self.data, found as usize + 8);
        Ok(u64::from(size.unwrap_or_default()))
    }

    /// Offset of a member in bytes. `path` is one name, or several with dots
    /// between them; members of members without a name are found by their own.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u64, Missing> {
        let mut at = self.structure(structure)?;
        let mut offset = 0;
        for name in path.split('.') {
            let missing = || Missing(format!("{structure}.{path}"));
            let (within, member) = self.member(at, name).ok_or_else(missing)?;
            offset += u64::from(within);
            at = self.resolve(member).unwrap_or_default();
        }
        Ok(offset)
    }

    /// How many elements a member of a structure has, if it is an array.
    pub fn elements(&self, structure: &str, member: &str) -> Result<u64, Missing> {
        let missing = || Missing(format!("array {structure}.{member}"));
        let at = self.structure(structure)?;
        let (_, number) = self.member(at, member).ok_or_else(missing)?;
        let at = self.resolve(number).ok_or_else(missing)? as usize;
        let info = word(&self.data, at + 4).ok_or_else(missing)?;
        let count = word(&self.data, at + FIXED + 8).filter(|_| kind_of(info) == kind::ARRAY);
        count.map(u64::from).ok_or_else(missing)
    }

    fn structure(&self, name: &str) -> Result<Position, Missing> {
        let found = self.named.get(name.as_bytes()).copied();
        found.ok_or_else(|| Missing(format!("struct {name}")))
    }

    /// Offset in bytes and type of a member.
    fn member(&self, at: Position, name: &str) -> Option<(u32, u32)> {
        let mut left = MAX_MEMBERS;
        self.member_within(at, name, MAX_DEPTH, &mut left)
    }

    /// The same, of structures in structures that are so deep at most, and of so many more
    /// members.
    fn member_within(
        &self,
        at: Position,
        name: &str,
        depth: u32,
        left: &mut u32,
    ) -> Option<(u32, u32)> {
        let at = at as usize;
        let info = word(&self.data, at + 4)?;
        if !matches!(kind_of(info), kind::STRUCT | kind::UNION) {
            return None;
        }
        let bitfields = info >> 31 == 1;
        (0..count_of(info)).find_map(|n| {
            *left = left.checked_sub(1)?;
            let at = at + FIXED + MEMBER * n;
            let member_type = word(&self.data, at + 4)?;
            let bits = word(&self.data, at + 8)?;
            let offset = if bitfields { bits & 0xff_ffff } else { bits } / 8;
            let name_at = word(&self.data, at)?;
            if name_at != 0 {
                let found = self.name(name_at) == name.as_bytes();
                return found.then_some((offset, member_type));
            }
            let inner = self.resolve(member_type)?;
            let (within, found) = self.member_within(inner, name, depth.checked_sub(1)?, left)?;
            Some((offset.checked_add(within)?, found))
        })
    }

    /// The type behind typedefs and qualifiers, if it is here.
    fn resolve(&self, number: u32) -> Option<Position> {
        let (btf, at) = self.place(self.resolve_number(number)?)?;
        std::ptr::eq(btf, self).then_some(at as Position)
    }

    /// Its number.
    fn resolve_number(&self, mut number: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let (btf, at) = self.place(number)?;
            let info = word(&btf.data, at + 4)?;
            match kind_of(info) {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    number = word(&btf.data, at + 8)?
                }
                _ => return Some(number),
            }
        }
        None
    }

    /// A name, cut where it is too long for one.
    fn name(&self, offset: u32) -> &[u8] {
        let mut offset = offset as usize;
        if let Some(kernel) = &self.kernel {
            match offset.checked_sub(kernel.strings_len) {
                Some(own) => offset = own,
                None => return kernel.name(offset as u32),
            }
        }
        let at = self.strings.saturating_add(offset);
        let text = self.data.get(at..).unwrap_or_default();
        let text = &text[..text.len().min(MAX_NAME)];
        &text[..memchr::memchr(0, text).unwrap_or(0)]
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn count_of(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Length of the data behind the fixed part, in bytes; `None` for unknown kinds.
fn variable_part(info: u32) -> Option<usize> {
    let each = match kind_of(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => return Some(4),
        kind::ARRAY => return Some(12),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => MEMBER,
        kind::ENUM | kind::FUNC_PROTO => 8,
        0 | 20.. => return None,
        _ => 0,
    };
    Some(each * count_of(info))
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
#[path = "btf_test.rs"]
mod tests;
