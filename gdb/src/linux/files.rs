//! The files that gdb may read: the guest's symbols.

use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use super::libraries::{Library, Told};
use super::locate::Kernel;
use super::made::{Served, copy_from};
use super::memory::Guest;
use super::synthetic::{self, ModuleSymbols};
use super::{Linux, NotFound, is_in_image_area, libraries, module_file, module_symbols, modules};

/// The name under which gdb reads the symbols that were found in guest memory.
const KERNEL_NAME: &[u8] = b"/outboard/kallsyms.elf";

/// That of the symbols of the modules alone.
pub(crate) const MODULES_NAME: &str = "/outboard/modules.elf";

/// The function that initialises a module. It is called for each one, and when all of
/// the module is where it will be (kernel/module/main.c).
const MODULE_EVENT: &str = "do_init_module";

impl Linux {
    /// The name of the file that gdb is to read; `None` when there is none.
    pub fn file_name(&self, guest: &dyn Guest) -> Option<Vec<u8>> {
        // A bare-metal program's file is served all the same.
        match self.kernel(guest) {
            Ok(kernel) if kernel.from_guest => {
                self.wait_for_types();
                self.make_main(&kernel)?;
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
        if let Some(module) = self.open_module(guest, name) {
            return Some(module);
        }
        (self.file_name(guest)? == name).then_some(Served::Main)
    }

    /// The file of a module that gdb has been told of, made when it is first opened.
    fn open_module(&self, guest: &dyn Guest, name: &[u8]) -> Option<Served> {
        let name = std::str::from_utf8(name).ok()?;
        let mut of_client = self.made.borrow_mut();
        let libraries = &mut of_client.libraries;
        if !libraries.told()?.iter().any(|told| told.name == name) {
            return None;
        }
        if let Some(found) = libraries.find(name) {
            return Some(found);
        }
        let kernel = self.kernel(guest).ok()?;
        let memory = kernel.memory(guest);
        let all = libraries::of(modules::brief(&kernel, &memory).ok()?);
        let library = all.iter().find(|library| library.name == name)?;
        let file = made(module_file::make(&kernel, &memory, &library.module))?;
        libraries.add(name, file)
    }

    /// The list of modules for gdb, which reads it now, from its beginning or further.
    pub fn library_list(&self, guest: &dyn Guest, offset: u64) -> Rc<[u8]> {
        if offset == 0 {
            let libraries = self.libraries(guest, self.kernel(guest));
            let libraries = libraries.unwrap_or_default();
            let list = libraries::xml(&libraries).into_bytes().into();
            let mut of_client = self.made.borrow_mut();
            let told = libraries.iter().map(Told::from).collect();
            of_client.libraries.tell(told, list);
        }
        self.made.borrow().libraries.list().clone()
    }

    /// Whether gdb knows other modules than there are.
    pub fn have_modules_changed(&self, guest: &dyn Guest) -> bool {
        let changed = self.changes(guest);
        changed.is_some_and(|(told, now)| !now.iter().map(Told::from).eq(told))
    }

    /// gdb hears that they have. Returns the memory of those that it knows and that are
    /// gone.
    pub fn announce_modules(&self, guest: &dyn Guest) -> Vec<Range<u64>> {
        let changed = self.changes(guest);
        self.made.borrow_mut().libraries.announce();
        let gone = changed.map(|(told, now)| libraries::gone(&told, &now));
        gone.unwrap_or_default()
    }

    /// The modules that gdb knows, if it wants to know, and those that there are.
    fn changes(&self, guest: &dyn Guest) -> Option<(Vec<Told>, Vec<Library>)> {
        // The borrow must not last: the kernel may be found now.
        let told = self.made.borrow().libraries.wanted().map(<[_]>::to_vec)?;
        let now = self.libraries(guest, self.likely_kernel(guest))?;
        Some((told, now))
    }

    /// Where Linux has laid out a module and is about to initialise it, if gdb wants to
    /// know.
    pub fn module_event(&self, guest: &dyn Guest) -> Option<u64> {
        self.made.borrow().libraries.wanted()?;
        self.likely_kernel(guest).ok()?.symbols.get(MODULE_EVENT)
    }

    /// The kernel, which is not looked for at each resume of a guest that runs none.
    fn likely_kernel(&self, guest: &dyn Guest) -> Result<Rc<Kernel>, NotFound> {
        let registers = guest.registers().into_iter().flatten();
        let mut places = registers.map(|registers| registers.linear_rip().0);
        match self.is_found() || places.any(is_in_image_area) {
            true => self.kernel(guest),
            false => Err(NotFound::TooEarly),
        }
    }

    /// The modules that there are; `None` if that cannot be told now.
    fn libraries(
        &self,
        guest: &dyn Guest,
        kernel: Result<Rc<Kernel>, NotFound>,
    ) -> Option<Vec<Library>> {
        let kernel = match kernel {
            Ok(kernel) => kernel,
            Err(NotFound::Looking) => return None,
            // Without a kernel there are no modules.
            Err(_) => return Some(Vec::new()),
        };
        match modules::brief(&kernel, &kernel.memory(guest)) {
            Ok(modules) => Some(libraries::of(modules)),
            Err(error) => {
                tracing::debug!("gdb: no modules: {error}");
                None
            }
        }
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
            Served::Module(number) => made.libraries.file(number),
        }
    }

    /// Makes the main file unless this client has had it: it reads it in pieces.
    fn make_main(&self, kernel: &Kernel) -> Option<()> {
        let mut of_client = self.made.borrow_mut();
        if of_client.main.is_none() {
            let debug = self.debug_sections();
            let file = synthetic::kernel(&kernel.symbols, kernel.base, &debug);
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
