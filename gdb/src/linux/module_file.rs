//! The file that gdb gets of a module: symbols, types and frames, out of guest memory.

use super::describe::{self, Known};
use super::memory::Memory;
use super::modules::Module;
use super::orc::{self, Row, Table};
use super::symbols::Symbols;
use super::{Kernel, LookError, module_btf, module_symbols, synthetic};

/// Makes it, of as much as there is.
pub(super) fn make(
    kernel: &Kernel,
    memory: &Memory<'_>,
    module: &Module,
) -> Result<Vec<u8>, object::write::Error> {
    let missing = |what: &str, error: LookError| {
        tracing::debug!("gdb: no {what} of module {}: {error}", module.name);
    };
    let mut symbols = Symbols::default();
    if let Err(error) = module_symbols::add(kernel, memory, module, &mut symbols) {
        missing("symbols", error);
    }
    symbols.seal();
    let btf = module_btf::read(kernel, memory, module.addr);
    let btf = btf.unwrap_or_else(|error| {
        missing("types", error);
        None
    });
    let code = module.code();
    let rows = rows(kernel, memory, module.addr).unwrap_or_else(|error| {
        missing("frames", error);
        Vec::new()
    });
    let known = Known {
        // With a dot, or gdb would take a structure of this name for a file.
        name: &format!("{}.ko", module.name),
        symbols: &symbols,
        btf: btf.as_ref(),
        rows: &orc::rows_in(rows, &code),
        code: Some(&code),
    };
    synthetic::module(module, &symbols, &describe::sections(&known, memory))
}

/// The rows of the module at `module`.
fn rows(kernel: &Kernel, memory: &Memory<'_>, module: u64) -> Result<Vec<Row>, LookError> {
    let types = kernel.btf(memory)?;
    let member = |name| Ok::<_, LookError>(module.wrapping_add(types.offset("module", name)?));
    let table = Table {
        places: memory.u64(member("arch.orc_unwind_ip")?)?,
        entries: memory.u64(member("arch.orc_unwind")?)?,
        count: memory.u32(member("arch.num_orcs")?)?.into(),
    };
    let rows = orc::rows(table, memory, Some(types), kernel.version_or_newest());
    rows.ok_or(LookError::Nonsense("a module's unwind table"))
}
