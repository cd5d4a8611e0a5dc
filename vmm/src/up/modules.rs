//! Which modules a guest has to load before it has a root, in an order in which they can be.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

use super::error::Error;
use super::kernel::{Kernel, Modules};

/// A driver and the option that builds it.
#[derive(Clone, Copy)]
pub struct Driver {
    pub name: &'static str,
    pub option: &'static str,
}

/// All modules of a kernel.
pub struct Index {
    release: String,
    modules: Modules,
    /// By name.
    paths: HashMap<String, PathBuf>,
    /// Of installed modules alone: what a file needs, as modules.dep has it.
    needs: HashMap<PathBuf, Vec<PathBuf>>,
    built_in: HashSet<String>,
}

impl Index {
    pub fn read(kernel: &Kernel) -> Result<Self, Error> {
        let mut index = Self {
            release: kernel.release.clone(),
            modules: kernel.modules.clone(),
            paths: HashMap::new(),
            needs: HashMap::new(),
            built_in: HashSet::new(),
        };
        let dir = kernel.modules.dir();
        for line in lines(&dir.join("modules.builtin"))? {
            index.built_in.insert(name(Path::new(&line)));
        }
        match &kernel.modules {
            Modules::Tree(dir) => index.read_order(dir)?,
            Modules::Installed(dir) => index.read_dependencies(dir)?,
        }
        Ok(index)
    }

    /// Since Linux 6.2 the tree's list has objects, and before that modules.
    fn read_order(&mut self, tree: &Path) -> Result<(), Error> {
        for line in lines(&tree.join("modules.order"))? {
            let path = tree.join(line).with_extension("ko");
            self.paths.insert(name(&path), path);
        }
        Ok(())
    }

    fn read_dependencies(&mut self, dir: &Path) -> Result<(), Error> {
        for line in lines(&dir.join("modules.dep"))? {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let path = dir.join(path);
            let needs = needs.split_whitespace().map(|path| dir.join(path));
            self.needs.insert(path.clone(), needs.collect());
            self.paths.insert(name(&path), path);
        }
        Ok(())
    }

    /// Whether the kernel has this driver, in one form or the other.
    pub fn has(&self, driver: Driver) -> bool {
        self.built_in.contains(driver.name) || self.paths.contains_key(driver.name)
    }

    /// Files to load for these drivers, each behind what it needs. Drivers that are built in
    /// need none.
    pub fn resolve(&self, drivers: &[Driver]) -> Result<Vec<PathBuf>, Error> {
        let (mut seen, mut files) = (HashSet::new(), Vec::new());
        for driver in drivers {
            if self.built_in.contains(driver.name) {
                continue;
            }
            let path = self.paths.get(driver.name).ok_or_else(|| Error::NoModule {
                release: self.release.clone(),
                name: driver.name,
                option: driver.option,
                modules: self.modules.dir().to_owned(),
            })?;
            self.add(path, &mut seen, &mut files)?;
        }
        Ok(files)
    }

    /// Modules that need each other end up in some order; the kernel has none.
    fn add(
        &self,
        path: &Path,
        seen: &mut HashSet<PathBuf>,
        files: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        if !seen.insert(path.to_owned()) {
            return Ok(());
        }
        for need in self.needed_by(path)? {
            self.add(&need, seen, files)?;
        }
        files.push(path.to_owned());
        Ok(())
    }

    fn needed_by(&self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        if let Some(needs) = self.needs.get(path) {
            return Ok(needs.clone());
        }
        let mut paths = Vec::new();
        for name in depends(path)? {
            if self.built_in.contains(&name) {
                continue;
            }
            let found = self.paths.get(&name).cloned();
            paths.push(found.ok_or_else(|| Error::NoDependency {
                path: path.to_owned(),
                name,
                modules: self.modules.dir().to_owned(),
            })?);
        }
        Ok(paths)
    }
}

/// Names in the `depends` of a module's section .modinfo, whose entries end in a NUL.
fn depends(path: &Path) -> Result<Vec<String>, Error> {
    let bytes = fs::read(path).map_err(read(path))?;
    let problem = |source| Error::Module {
        path: path.to_owned(),
        source,
    };
    let file = object::File::parse(&*bytes).map_err(problem)?;
    let Some(section) = file.section_by_name(".modinfo") else {
        return Ok(Vec::new());
    };
    let entries = section.data().map_err(problem)?.split(|byte| *byte == 0);
    let names = entries.filter_map(|entry| entry.strip_prefix(b"depends="));
    let names = names.flat_map(|names| names.split(|byte| *byte == b','));
    let names = names.filter(|name| !name.is_empty());
    Ok(names
        .map(|name| underscored(&String::from_utf8_lossy(name)))
        .collect())
}

/// What the kernel calls a module of this file, `virtio-rng.ko.xz` for instance.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    underscored(file.split('.').next().unwrap_or_default())
}

fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

/// None of a file that is not there: a kernel may have no modules.
fn lines(path: &Path) -> Result<Vec<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(read(path)(source)),
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[path = "modules_test.rs"]
mod tests;
