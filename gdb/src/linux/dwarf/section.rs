//! A section of an ELF file that is for debuggers alone.

pub(crate) struct DebugSection {
    pub name: &'static str,
    pub data: Vec<u8>,
}
