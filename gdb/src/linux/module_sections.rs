//! Where a module's sections are, as the kernel keeps it for sysfs.

use super::btf::{Btf, Missing};
use super::memory::{Memory, Unreadable};

/// Most sections of one module that are listed.
pub(super) const MAX_SECTIONS: u64 = 256;
/// Longest name of a section.
const MAX_NAME: usize = 128;

/// Where the members of the structures are.
pub(super) struct Sections {
    attrs: u64,
    count: Count,
    array: u64,
    stride: u64,
    name: u64,
    address: u64,
}

/// How many sections there are.
enum Count {
    /// By a member.
    Member(u64),
    /// By this member, a list of pointers that ends in a null pointer.
    Pointers(u64),
}

impl Sections {
    pub fn of(btf: &Btf) -> Result<Self, Missing> {
        let attrs = btf.offset("module", "sect_attrs")?;
        let array = btf.offset("module_sect_attrs", "attrs")?;
        // From 6.14 on an array of attributes; before, of these with addresses.
        let (stride, name, address) = match btf.size("module_sect_attr") {
            Ok(stride) => (
                stride,
                btf.offset("module_sect_attr", "battr.attr.name")?,
                btf.offset("module_sect_attr", "address")?,
            ),
            Err(_) => (
                btf.size("bin_attribute")?,
                btf.offset("bin_attribute", "attr.name")?,
                btf.offset("bin_attribute", "private")?,
            ),
        };
        // Dropped in 6.14 too.
        let count = match btf.offset("module_sect_attrs", "nsections") {
            Ok(count) => Count::Member(count),
            Err(_) => Count::Pointers(btf.offset("module_sect_attrs", "grp.bin_attrs")?),
        };
        Ok(Self {
            attrs,
            count,
            array,
            stride,
            name,
            address,
        })
    }

    /// Name and address of each section of the module at `module`.
    pub fn read(&self, memory: &Memory<'_>, module: u64) -> Result<Vec<(String, u64)>, Unreadable> {
        let attrs = memory.u64(module.wrapping_add(self.attrs))?;
        if attrs == 0 {
            return Ok(Vec::new());
        }
        let count = self.count.read(memory, attrs)?.min(MAX_SECTIONS);
        let section = |n| {
            let at = attrs.wrapping_add(self.array + n * self.stride);
            let name = memory.u64(at.wrapping_add(self.name))?;
            let addr = memory.u64(at.wrapping_add(self.address))?;
            Ok((memory.string(name, MAX_NAME)?, addr))
        };
        (0..count).map(section).collect()
    }
}

impl Count {
    /// At most [`MAX_SECTIONS`] where pointers are to be counted.
    fn read(&self, memory: &Memory<'_>, attrs: u64) -> Result<u64, Unreadable> {
        let pointers = match self {
            Count::Member(at) => return Ok(memory.u32(attrs.wrapping_add(*at))?.into()),
            Count::Pointers(at) => memory.u64(attrs.wrapping_add(*at))?,
        };
        for n in 0..MAX_SECTIONS {
            if memory.u64(pointers.wrapping_add(8 * n))? == 0 {
                return Ok(n);
            }
        }
        Ok(MAX_SECTIONS)
    }
}
