//! The types of a module (CONFIG_DEBUG_INFO_BTF_MODULES), which refer to the kernel's.
//!
//! The module's own pointer to them leads nowhere once it is loaded. The kernel keeps a
//! copy in a list of its own, from before the module's initialisation on
//! (kernel/bpf/btf.c).

use super::btf::Btf;
use super::lists;
use super::memory::Memory;
use super::modules::MAX_MODULES;
use super::{Kernel, LookError};

/// Most bytes of one module's types; the largest of Debian's have 500 KiB.
const MAX_BYTES: u32 = 16 << 20;

/// The types of the module at `module`; none if the kernel has none of it.
pub(super) fn read(
    kernel: &Kernel,
    memory: &Memory<'_>,
    module: u64,
) -> Result<Option<Btf>, LookError> {
    let types = kernel.btf(memory)?;
    let head = kernel.symbol("btf_modules")?;
    let list = types.offset("btf_module", "list")?;
    let owner = types.offset("btf_module", "module")?;
    let of_module = types.offset("btf_module", "btf")?;
    let mut found = None;
    lists::walk(memory, head, list, MAX_MODULES, |at| {
        if memory.u64(at.wrapping_add(owner))? == module {
            found = Some(memory.u64(at.wrapping_add(of_module))?);
        }
        Ok(())
    })?;
    let Some(at) = found else {
        return Ok(None);
    };
    let data = memory.u64(at.wrapping_add(types.offset("btf", "data")?))?;
    let len = memory.u32(at.wrapping_add(types.offset("btf", "data_size")?))?;
    if len > MAX_BYTES {
        return Err(LookError::Nonsense("a module's types"));
    }
    let data = memory.bytes(data, len as usize)?;
    Ok(Btf::parse_module(types.clone(), data))
}
