//! Each type of a kernel as the data has it, for those who want all of them.

use super::{Btf, FIXED, count_of, kind, kind_of, word};

/// The number of a type; 0 is `void`.
pub(crate) type Number = u32;

/// One type.
pub(crate) enum Type<'a> {
    Int(Int<'a>),
    Float {
        name: &'a [u8],
        size: u32,
    },
    Pointer(Number),
    Array {
        element: Number,
        count: u32,
    },
    Composite(Composite<'a>),
    Enum(Enum<'a>),
    /// A structure, or a union, of which only the name is known.
    Forward {
        name: &'a [u8],
        is_union: bool,
    },
    Typedef {
        name: &'a [u8],
        of: Number,
    },
    Const(Number),
    Volatile(Number),
    Restrict(Number),
    /// A type with an attribute of the compiler's, which changes nothing of it.
    Tagged(Number),
    Prototype(Prototype<'a>),
    Function {
        name: &'a [u8],
        prototype: Number,
    },
    Variable {
        name: &'a [u8],
        of: Number,
    },
    /// No type, but a note about others.
    Note,
}

/// An integer, or a piece of one: bit-fields have types of their own where members
/// have no width.
pub(crate) struct Int<'a> {
    pub name: &'a [u8],
    pub size: u32,
    pub is_signed: bool,
    pub is_bool: bool,
    /// Where the piece begins, and how many bits it has.
    pub bit_offset: u32,
    pub bits: u32,
}

/// A structure or a union.
pub(crate) struct Composite<'a> {
    btf: &'a Btf,
    at: usize,
    info: u32,
    pub name: &'a [u8],
    pub is_union: bool,
    /// In bytes.
    pub size: u32,
}

/// A member of one.
pub(crate) struct Member<'a> {
    pub name: &'a [u8],
    pub of: Number,
    pub bit_offset: u32,
    /// Of a bit-field.
    pub bits: Option<u32>,
}

pub(crate) struct Enum<'a> {
    btf: &'a Btf,
    at: usize,
    info: u32,
    pub name: &'a [u8],
    pub size: u32,
    pub is_signed: bool,
}

/// The type of functions.
pub(crate) struct Prototype<'a> {
    btf: &'a Btf,
    at: usize,
    info: u32,
    pub result: Number,
}

/// One of its parameters.
pub(crate) enum Parameter<'a> {
    Named { name: &'a [u8], of: Number },
    Variadic,
}

impl Btf {
    /// The type of this number.
    pub fn get(&self, number: Number) -> Option<Type<'_>> {
        let (btf, at) = self.place(number)?;
        let (name, info) = (word(&btf.data, at)?, word(&btf.data, at + 4)?);
        let (name, size) = (btf.clean_name(name), word(&btf.data, at + 8)?);
        let flag = info >> 31 == 1;
        let first = || word(&btf.data, at + FIXED);
        Some(match kind_of(info) {
            kind::INT => Type::Int(int(name, size, first()?)),
            kind::FLOAT => Type::Float { name, size },
            kind::POINTER => Type::Pointer(size),
            kind::ARRAY => Type::Array {
                element: first()?,
                count: word(&btf.data, at + FIXED + 8)?,
            },
            composite @ (kind::STRUCT | kind::UNION) => Type::Composite(Composite {
                btf,
                at,
                info,
                name,
                is_union: composite == kind::UNION,
                size,
            }),
            kind::ENUM | kind::ENUM64 => Type::Enum(Enum {
                btf,
                at,
                info,
                name,
                size,
                is_signed: flag,
            }),
            kind::FORWARD => Type::Forward {
                name,
                is_union: flag,
            },
            kind::TYPEDEF => Type::Typedef { name, of: size },
            kind::CONST => Type::Const(size),
            kind::VOLATILE => Type::Volatile(size),
            kind::RESTRICT => Type::Restrict(size),
            kind::TYPE_TAG => Type::Tagged(size),
            kind::FUNC_PROTO => Type::Prototype(Prototype {
                btf,
                at,
                info,
                result: size,
            }),
            kind::FUNCTION => Type::Function {
                name,
                prototype: size,
            },
            kind::VAR => Type::Variable { name, of: size },
            _ => Type::Note,
        })
    }

    /// The type of this number, behind typedefs and qualifiers.
    pub fn resolved(&self, number: Number) -> Option<Type<'_>> {
        self.get(self.resolve_number(number)?)
    }

    /// The structure of this name.
    pub fn structure_number(&self, name: &str) -> Option<Number> {
        let position = self.named.get(name.as_bytes())?;
        let index = self.types.binary_search(position).ok()?;
        Some(*self.own().start() + index as Number)
    }

    /// The integer of this name.
    pub fn int_number(&self, name: &str) -> Option<Number> {
        let is_it = |number: &Number| matches!(self.get(*number), Some(Type::Int(int)) if int.name == name.as_bytes());
        self.own().find(is_it)
    }

    /// The name at this place, if it has nothing in it that no C name has: the guest
    /// chose it, and it gets to terminals.
    fn clean_name(&self, offset: u32) -> &[u8] {
        let name = self.name(offset);
        let is_clean = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        match name.iter().all(is_clean) {
            true => name,
            false => &[],
        }
    }

    /// The records of so many words behind a type's fixed part.
    fn records<const N: usize>(&self, at: usize, info: u32) -> impl Iterator<Item = [u32; N]> {
        let record = move |n: usize| {
            let mut words = [0; N];
            for (place, value) in words.iter_mut().enumerate() {
                *value = word(&self.data, at + FIXED + 4 * (N * n + place))?;
            }
            Some(words)
        };
        (0..count_of(info)).map_while(record)
    }
}

/// The word behind an integer's fixed part (btf.rst, 2.2.1).
fn int(name: &[u8], size: u32, word: u32) -> Int<'_> {
    Int {
        name,
        size,
        is_signed: word >> 24 & 1 != 0,
        is_bool: word >> 24 & 4 != 0,
        bit_offset: word >> 16 & 0xff,
        bits: word & 0xff,
    }
}

impl<'a> Composite<'a> {
    pub fn members(&self) -> impl Iterator<Item = Member<'a>> + use<'a> {
        let (btf, has_widths) = (self.btf, self.info >> 31 == 1);
        let records = btf.records(self.at, self.info);
        records.map(move |[name, of, place]| {
            let width = if has_widths { place >> 24 } else { 0 };
            let offset = if has_widths { place & 0xff_ffff } else { place };
            let piece = || match btf.resolved(of) {
                Some(Type::Int(int)) if int.bits != int.size.saturating_mul(8) => {
                    Some((int.bit_offset, int.bits))
                }
                _ => None,
            };
            let (within, bits) = match width {
                0 => piece().map_or((0, None), |(within, bits)| (within, Some(bits))),
                width => (0, Some(width)),
            };
            Member {
                name: btf.clean_name(name),
                of,
                bit_offset: offset.saturating_add(within),
                bits,
            }
        })
    }
}

impl<'a> Enum<'a> {
    /// Names and values, which are to be taken as signed or not.
    pub fn values(&self) -> impl Iterator<Item = (&'a [u8], i64)> + use<'a> {
        let btf = self.btf;
        let (wide, is_signed) = (kind_of(self.info) == kind::ENUM64, self.is_signed);
        let narrow = move |[name, value]: [u32; 2]| match is_signed {
            true => (name, i64::from(value as i32)),
            false => (name, i64::from(value)),
        };
        let (narrow_info, wide_info) = match wide {
            true => (0, self.info),
            false => (self.info, 0),
        };
        let both =
            |[name, low, high]: [u32; 3]| (name, (u64::from(high) << 32 | u64::from(low)) as i64);
        let narrow = btf.records(self.at, narrow_info).map(narrow);
        let wide = btf.records(self.at, wide_info).map(both);
        let all = narrow.chain(wide);
        all.map(move |(name, value)| (btf.clean_name(name), value))
    }
}

impl<'a> Prototype<'a> {
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'a>> + use<'a> {
        let btf = self.btf;
        let records = btf.records(self.at, self.info);
        records.map(move |[name, of]| match (name, of) {
            (0, 0) => Parameter::Variadic,
            _ => Parameter::Named {
                name: btf.clean_name(name),
                of,
            },
        })
    }
}

#[cfg(test)]
#[path = "types_test.rs"]
mod tests;
