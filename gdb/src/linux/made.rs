//! Files that were made of guest memory.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::libraries::Told;

/// Most bytes of the files of all modules together. Debian's have 100 KiB each.
const MAX_BYTES: usize = 512 << 20;

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The main one: the kernel's, or the program's.
    Main,
    Modules,
    /// The n-th of those of single modules.
    Module(u32),
}

/// Those of one client.
#[derive(Default)]
pub(super) struct Made {
    pub main: Option<Rc<[u8]>>,
    pub modules: Option<Rc<[u8]>>,
    pub libraries: Libraries,
}

/// The files of modules that gdb has been told of.
#[derive(Default)]
pub(super) struct Libraries {
    /// They, once gdb has asked.
    told: Option<Vec<Told>>,
    /// gdb has heard that there are others, and has not asked since.
    announced: bool,
    /// The list in gdb's format.
    list: Rc<[u8]>,
    /// Those that gdb has opened, by number.
    files: BTreeMap<u32, (String, Rc<[u8]>)>,
    next: u32,
}

impl Libraries {
    /// gdb reads this list now. Files of other names are not read any more.
    pub fn tell(&mut self, told: Vec<Told>, list: Rc<[u8]>) {
        let is_told = |name: &String| told.iter().any(|told| told.name == *name);
        self.files.retain(|_, (name, _)| is_told(name));
        self.told = Some(told);
        self.announced = false;
        self.list = list;
    }

    /// gdb hears that there are others. One that does not ask then is not told again.
    pub fn announce(&mut self) {
        self.announced = true;
    }

    /// What it has been told of, if it wants to hear of others.
    pub fn wanted(&self) -> Option<&[Told]> {
        self.told().filter(|_| !self.announced)
    }

    /// The guest is another one, and gdb has yet to hear of that.
    pub fn forget_files(&mut self) {
        self.files.clear();
    }

    pub fn told(&self) -> Option<&[Told]> {
        self.told.as_deref()
    }

    pub fn list(&self) -> &Rc<[u8]> {
        &self.list
    }

    /// The file of this name, if it has been opened before.
    pub fn find(&self, name: &str) -> Option<Served> {
        let mut files = self.files.iter();
        let (number, _) = files.find(|(_, (other, _))| other == name)?;
        Some(Served::Module(*number))
    }

    /// Keeps a file; `None` where there are too many.
    pub fn add(&mut self, name: &str, file: Rc<[u8]>) -> Option<Served> {
        let kept: usize = self.files.values().map(|(_, file)| file.len()).sum();
        if kept.saturating_add(file.len()) > MAX_BYTES {
            tracing::warn!("gdb: no file is made of {name}: there are too many");
            return None;
        }
        let number = self.next;
        self.next = number.checked_add(1)?;
        self.files.insert(number, (name.to_owned(), file));
        Some(Served::Module(number))
    }

    pub fn file(&self, number: u32) -> Option<Rc<[u8]>> {
        Some(self.files.get(&number)?.1.clone())
    }
}

/// Copies as much of `data` from `offset` on as fits, and returns how much that is.
pub(crate) fn copy_from(data: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = data.get(offset..).unwrap_or_default();
    let count = rest.len().min(buf.len());
    buf[..count].copy_from_slice(&rest[..count]);
    count
}
