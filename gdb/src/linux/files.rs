//! The files that gdb may read: the guest's symbols.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use super::locate::Kernel;
use super::made::{Served, copy_from};
use super::memory::Guest;
use super::synthetic::{self, ModuleSymbols};
use super::{Linux, module_symbols, modules};

/// The name under which gdb reads the symbols that were found in guest memory.
const KERNEL_NAME: &[u8] = b"/outboard/kallsyms.elf";

/// That of the symbols of the modules alone.
pub(crate) const MODULES_NAME: &str = "/outboard/modules.elf";

impl Linux {
    /// The name of the file that gdb is to read; `None` when there is none.
    pub fn file_name(&self, guest: &dyn Guest) -> Option<Vec<u8>> {
        // A bare-metal program's file is served all the same.
        match self.kernel(guest) {
            Ok(kernel) if kernel.from_guest => {
                self.wait_for_types();
                self.make_main(&kernel, guest)?;
                Some(KERNEL_NAME.to_vec())
            }
            _ => Some(self.file.as_ref()?.path().as_os_str().as_bytes().to_vec()),
        }
    }

    /// The file of this name.
    pub fn open(&self, guest: &dyn Guest, name: &[u8]) -> Option<Served> {
        if name == MODULES_NAME.as_bytes() {
            let kernel = self.kernel(guest).ok()?;
            self.made.borrow_mut().modules =
                made(synthetic::modules(&module_symbols_of(&kernel, guest)));
            return self
                .made
                .borrow()
                .modules
                .is_some()
                .then_some(Served::Modules);
        }
        (self.file_name(guest)? == name).then_some(Served::Main)
    }

    /// Whether gdb can have opened a file.
    pub fn is_open(&self, served: Served) -> bool {
        self.made(served).is_some() || served == Served::Main && self.file.is_some()
    }

    /// Whether gdb has had the file with this kernel's symbols, or brought its own.
    pub fn has_symbols_of(&self, kernel: &Kernel) -> bool {
        !kernel.from_guest || self.made(Served::Main).is_some()
    }

    /// Length of a file in bytes.
    pub fn file_len(&self, served: Served) -> u64 {
        match (self.made(served), &self.file) {
            (Some(bytes), _) => bytes.len() as u64,
            (None, Some(file)) if served == Served::Main => file.len(),
            (None, _) => 0,
        }
    }

    /// Reads of a file up to its end.
    pub fn read_file(&self, served: Served, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match (self.made(served), &self.file) {
            (Some(bytes), _) => Ok(copy_from(&bytes, offset, buf)),
            (None, Some(file)) if served == Served::Main => file.read_at(offset, buf),
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn made(&self, served: Served) -> Option<Rc<[u8]>> {
        let made = self.made.borrow();
        match served {
            Served::Main => made.main.clone(),
            Served::Modules => made.modules.clone(),
        }
    }

    /// Makes the main file unless this client has had it: it reads it in pieces.
    fn make_main(&self, kernel: &Kernel, guest: &dyn Guest) -> Option<()> {
        let mut of_client = self.made.borrow_mut();
        if of_client.main.is_none() {
            let modules = module_symbols_of(kernel, guest);
            let debug = self.debug_sections();
            let file = synthetic::kernel(&kernel.symbols, kernel.base, &modules, &debug);
            of_client.main = made(file);
        }
        of_client.main.is_some().then_some(())
    }
}

/// The symbols of as many modules as can be read.
fn module_symbols_of(kernel: &Kernel, guest: &dyn Guest) -> ModuleSymbols {
    let memory = kernel.memory(guest);
    let mut found = ModuleSymbols::default();
    match modules::all(kernel, &memory) {
        Ok(modules) => found.modules = modules,
        Err(error) => tracing::debug!("gdb: no modules: {error}"),
    }
    for module in &found.modules {
        if let Err(error) = module_symbols::add(kernel, &memory, module, &mut found.symbols) {
            tracing::debug!("gdb: no symbols of module {}: {error}", module.name);
        }
    }
    found.symbols.seal();
    found
}

fn made(file: Result<Vec<u8>, object::write::Error>) -> Option<Rc<[u8]>> {
    file.map(Rc::from)
        .map_err(|error| tracing::warn!("gdb: no symbol file can be made: {error}"))
        .ok()
}
