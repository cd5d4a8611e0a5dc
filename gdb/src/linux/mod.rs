//! Awareness of a Linux guest, without scripts and debug packages.
//!
//! | module | what it does |
//! |---|---|
//! | `memory` | the guest's memory by the kernel's addresses |
//! | `image` | where the kernel's image is mapped |
//! | `kallsyms` | the symbol table in the image |
//! | `symbols` | names and run-time addresses |
//! | `locate` | which kernel runs, and where |
//! | `search` | the search for it, beside all else |
//! | `shared` | the guest for threads beside |
//! | `orc` | how the kernel's frames are unwound |
//! | `describe` | types and frames for gdb, made beside all else |
//! | `synthetic` | symbol files for gdb where there are none |
//! | `files`, `made` | the files that gdb may read |
//! | `libraries` | modules as gdb's libraries |
//! | `look_error`, `not_found` | what cannot be told, and why |
//! | `btf` | the kernel's types |
//! | `dwarf` | them, and its functions, as gdb wants them |
//! | `lists` | its linked lists |
//! | `tasks`, `modules`, `dmesg` | what it has of these |
//! | `module_parts`, `module_sections`, `module_symbols`, `module_btf` | what a module has of these |
//! | `module_file` | all of that as a file |
//!
//! Everything here reads memory that the guest may have filled with anything:
//! every length is bounded, and data that makes no sense is an error.

mod btf;
mod describe;
pub(crate) mod dmesg;
mod dwarf;
mod files;
mod image;
mod kallsyms;
mod libraries;
mod lists;
mod locate;
mod look_error;
mod made;
mod memory;
mod module_btf;
mod module_file;
mod module_parts;
mod module_sections;
mod module_symbols;
pub(crate) mod modules;
mod not_found;
mod orc;
mod search;
mod shared;
mod symbols;
mod synthetic;
pub(crate) mod tasks;
#[cfg(test)]
pub(crate) mod testing;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use describe::Description;
use dwarf::DebugSection;
pub(crate) use files::MODULES_NAME;
pub(crate) use image::is_in_image_area;
pub(crate) use locate::Kernel;
pub(crate) use look_error::LookError;
use made::Made;
pub(crate) use made::{Served, copy_from};
use memory::Guest;
pub(crate) use not_found::NotFound;
use search::Search;

use crate::arch::Registers;
use crate::symbol_file::SymbolFile;

/// How long after it has attached gdb can be kept waiting for types: no longer than the
/// search for the kernel may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Awareness of Linux, for one guest: the facts about its kernel, and the file
/// that gdb gets its symbols from.
#[derive(Default)]
pub(crate) struct Linux {
    /// The VMM's file: the kernel that was booted, or the user's choice.
    file: Option<Arc<SymbolFile>>,
    found: RefCell<Found>,
    /// The files that were made of guest memory for this client.
    made: RefCell<Made>,
    /// Types and frames of the kernel that was found, if no file has them.
    description: RefCell<Option<Description>>,
    /// Somebody had to do without the kernel, for the search takes long.
    missed: Cell<bool>,
    /// Or without its types.
    missed_types: Cell<bool>,
    /// Until when types are waited for.
    deadline: Cell<Option<Instant>>,
}

/// The result of the search for the kernel.
#[derive(Default)]
enum Found {
    #[default]
    NotLooked,
    Looking(Search),
    Kernel(Rc<Kernel>),
    /// Not looked for again until a new client comes or the guest is reset,
    /// unless it was too early.
    Nothing(NotFound),
}

impl Linux {
    pub fn new(file: Option<Arc<SymbolFile>>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// A new client: a kernel may be there by now, or one that was found may
    /// have been overwritten. A search in progress is not begun again.
    pub fn look_again(&mut self, guest: &dyn Guest) {
        self.made = RefCell::default();
        let found = self.found.get_mut();
        match found {
            Found::Looking(search) => search.renew(),
            Found::Kernel(kernel) if kernel.is_still_there(guest) => {}
            _ => *found = Found::NotLooked,
        }
        self.missed.set(false);
        self.missed_types.set(false);
        self.deadline.set(Some(Instant::now() + PATIENCE));
        self.look(guest);
    }

    /// The guest was reset, with this file from now on. gdb does not know yet that the
    /// modules are gone.
    pub fn reset(&mut self, file: Option<Arc<SymbolFile>>) {
        let mut made = Made::default();
        std::mem::swap(&mut made.libraries, &mut self.made.get_mut().libraries);
        made.libraries.forget_files();
        *self = Self::new(file);
        self.made = RefCell::new(made);
    }

    /// The kernel that runs; the guest must be stopped. Where looking for it takes long,
    /// that is the answer.
    pub fn kernel(&self, guest: &dyn Guest) -> Result<Rc<Kernel>, NotFound> {
        // A search whose result does not count is followed by one whose result does.
        for _ in 0..2 {
            self.look(guest);
            let outcome = match &*self.found.borrow() {
                Found::Looking(search) => search.wait(),
                _ => None,
            };
            let Some(outcome) = outcome else { break };
            self.conclude(guest, outcome);
            if !matches!(&*self.found.borrow(), Found::NotLooked) {
                break;
            }
        }
        match &*self.found.borrow() {
            Found::Kernel(kernel) => Ok(kernel.clone()),
            Found::Nothing(why) => Err(why.clone()),
            Found::Looking(_) | Found::NotLooked => {
                self.missed.set(true);
                Err(NotFound::Looking)
            }
        }
    }

    /// Whether it is known.
    fn is_found(&self) -> bool {
        matches!(&*self.found.borrow(), Found::Kernel(_))
    }

    /// Whether the present client has asked for the kernel too early.
    pub fn was_missed(&self) -> bool {
        self.missed.get()
    }

    /// The same of its types.
    pub fn were_types_missed(&self) -> bool {
        self.missed_types.get()
    }

    /// Gives types and frames the time that is left for an answer to gdb.
    fn wait_for_types(&self) {
        if let (Some(description), Some(deadline)) =
            (&*self.description.borrow(), self.deadline.get())
        {
            description.wait(deadline);
        }
    }

    /// Types and frames of the kernel that was found; nothing where making them takes
    /// long.
    fn debug_sections(&self) -> Rc<[DebugSection]> {
        let description = self.description.borrow();
        let Some(description) = &*description else {
            return Rc::new([]);
        };
        let made = description.wait(Instant::now());
        self.missed_types.set(made.is_none());
        made.unwrap_or_else(|| Rc::new([]))
    }

    /// Waits for the end of a search, if one is in progress.
    pub fn finish_search(&self, guest: &dyn Guest) {
        let outcome = match &*self.found.borrow() {
            Found::Looking(search) => search.finish(),
            _ => return,
        };
        self.conclude(guest, outcome);
    }

    /// Begins to look for the kernel, unless that is done or vain.
    fn look(&self, guest: &dyn Guest) {
        let mut found = self.found.borrow_mut();
        let begins = match &*found {
            Found::NotLooked => true,
            Found::Nothing(why) => why.may_change(),
            Found::Looking(_) | Found::Kernel(_) => false,
        };
        if begins {
            *found = Found::Looking(Search::start(guest, self.file.clone()));
        }
    }

    /// Takes over the result of a search. It counts less if the guest ran meanwhile.
    fn conclude(&self, guest: &dyn Guest, outcome: Result<Kernel, NotFound>) {
        let mut found = self.found.borrow_mut();
        let Found::Looking(search) = &*found else {
            return;
        };
        let outdated = search.is_outdated(guest);
        *self.description.borrow_mut() = None;
        *found = match outcome {
            Ok(kernel) if !outdated || kernel.is_still_there(guest) => {
                if kernel.from_guest {
                    let description = Description::start(guest, &kernel);
                    *self.description.borrow_mut() = Some(description);
                }
                Found::Kernel(Rc::new(kernel))
            }
            Err(why) if !outdated => Found::Nothing(why),
            _ => Found::NotLooked,
        };
    }

    /// The task that the vCPU with these registers runs.
    pub fn current(
        &self,
        guest: &dyn Guest,
        registers: &Registers,
    ) -> Result<tasks::Current, LookError> {
        let kernel = self.kernel(guest)?;
        tasks::current(&kernel, &kernel.memory(guest), registers)
    }

    /// Where the kernel was linked to begin, or the program whose file there is.
    pub fn linked_base(&self) -> Option<u64> {
        match &*self.found.borrow() {
            Found::Kernel(kernel) => Some(kernel.linked()),
            _ => self.file.as_ref().map(|file| file.base()),
        }
    }
}
