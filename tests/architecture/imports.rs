//! Which file of a crate takes names from which other.
//!
//! A file imports another when it names something that is defined there, by a
//! private `use` or by a path in its code or in the arguments of a macro. Names are
//! followed through re-exports to the file that defines them. From that follows:
//!
//! - `mod x;` and `pub use x::Y;` are no imports. A parent that only declares and
//!   re-exports its children knows nothing of them; one that uses what it re-exports
//!   imports it.
//! - A child that takes a sibling's name from their parent imports the sibling.
//! - A child that takes what its parent defines imports the parent. If the parent
//!   uses the child too, that is a circle like any other.
//! - A module's name alone (`use crate::target;`) is no import. What is then taken out
//!   of it (`target::Result`) is.
//!
//! Tests are left out: files named `_test.rs` and whatever is `#[cfg(test)]`. So are
//! programs (`main.rs`, `bin/`), which are crates of their own. Method calls have no
//! path and are not seen, nor is what a macro's expansion defines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// From `crate` to a module, or from a module to a name.
type Names = Vec<String>;

/// For each pair of files, the names that the first takes from the second.
pub type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// What one module says.
#[derive(Default)]
struct Module {
    file: String,
    defined: BTreeSet<String>,
    uses: Vec<Use>,
    paths: BTreeSet<Names>,
}

/// One name that a `use` declaration brings in.
struct Use {
    /// `*` for all.
    name: String,
    path: Names,
    is_private: bool,
}

/// The modules of a crate by their path.
#[derive(Default)]
pub struct Modules(BTreeMap<Names, Module>);

impl Modules {
    /// Reads all that is below `dir`, a crate's `src`.
    pub fn read(dir: &Path) -> Self {
        let mut files = Vec::new();
        collect_files(dir, Path::new(""), &mut files);
        Self::parse(&files)
    }

    /// Parses files, each a path below `src` with its text.
    pub fn parse(files: &[(String, String)]) -> Self {
        let mut modules = Self::default();
        let mut tests = Vec::new();
        for (path, text) in files {
            let Some(module) = module_of(path) else {
                continue;
            };
            let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut reader = Reader {
                file: path,
                module,
                modules: &mut modules,
                tests: &mut tests,
            };
            reader.modules.at(&reader.module, path);
            reader.visit_file(&file);
        }
        let is_test = |module: &Names| tests.iter().any(|test| module.starts_with(test));
        modules.0.retain(|module, _| !is_test(module));
        modules
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (at, module) in &self.0 {
            let private = module.uses.iter().filter(|it| it.is_private);
            let paths = private.map(|it| &it.path).chain(&module.paths);
            for path in paths {
                let Some((file, name)) = self.resolve(at, path, &mut BTreeSet::new()) else {
                    continue;
                };
                if *file != module.file {
                    let pair = (module.file.clone(), file.clone());
                    imports.entry(pair).or_default().insert(name);
                }
            }
        }
        imports
    }

    fn at(&mut self, module: &Names, file: &str) -> &mut Module {
        let found = self.0.entry(module.clone()).or_default();
        file.clone_into(&mut found.file);
        found
    }

    /// The file that defines what `path` names in the module at `at`, and the name
    /// there. `None` for what is not of this crate, and for modules themselves.
    ///
    /// `seen` are the names that it was followed through: `use` declarations may lead
    /// in a circle.
    fn resolve(
        &self,
        at: &[String],
        path: &[String],
        seen: &mut BTreeSet<(Names, String)>,
    ) -> Option<(&String, String)> {
        let (at, rest) = self.descend(at, path);
        let is_ours = rest.len() < path.len();
        let module = self.0.get(&at)?;
        let (name, behind) = rest.split_first()?;
        if module.defined.contains(name) {
            return Some((&module.file, name.clone()));
        }
        let is_first = seen.is_empty();
        if !seen.insert((at.clone(), name.clone())) {
            return None;
        }
        if let Some(named) = module.uses.iter().find(|it| it.name == *name) {
            return self.resolve(&at, &[&named.path[..], behind].concat(), seen);
        }
        for all in module.uses.iter().filter(|it| it.name == "*") {
            if let Some(found) = self.resolve(&at, &[&all.path[..], rest].concat(), seen) {
                return Some(found);
            }
        }
        // A macro's expansion may define it. Behind a `*` that would be a guess.
        (is_ours && is_first).then(|| (&module.file, name.clone()))
    }

    /// Follows the modules that `path` begins with, from the one at `at` on: where they
    /// lead, and the rest of the path.
    fn descend<'a>(&self, at: &[String], path: &'a [String]) -> (Names, &'a [String]) {
        let mut at = at.to_vec();
        let mut rest = path;
        while let Some((first, behind)) = rest.split_first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                child => {
                    at.push(child.to_owned());
                    if !self.0.contains_key(&at) {
                        at.pop();
                        break;
                    }
                }
            }
            rest = behind;
        }
        (at, rest)
    }
}

/// The module that a file below `src` is; `None` for programs and tests.
fn module_of(path: &str) -> Option<Names> {
    if path == "main.rs" || path.starts_with("bin/") || path.ends_with("_test.rs") {
        return None;
    }
    let mut names: Names = path
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if names.last().is_some_and(|last| last == "mod") || path == "lib.rs" {
        names.pop();
    }
    Some(names)
}

fn collect_files(root: &Path, below: &Path, files: &mut Vec<(String, String)>) {
    let entries = std::fs::read_dir(root.join(below)).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            collect_files(root, &path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            files.push((path.to_str().unwrap().to_owned(), text));
        }
    }
}

/// Notes what the items of one file say.
struct Reader<'a> {
    file: &'a str,
    /// The module that the current item is in.
    module: Names,
    modules: &'a mut Modules,
    /// Modules that exist in tests only.
    tests: &'a mut Vec<Names>,
}

impl Reader<'_> {
    fn here(&mut self) -> &mut Module {
        self.modules.at(&self.module, self.file)
    }

    /// A module inside the current one.
    fn child(&self, name: String) -> Names {
        let mut module = self.module.clone();
        module.push(name);
        module
    }

    fn note_use(&mut self, tree: &UseTree, before: &Names, is_private: bool) {
        let with = |name: &syn::Ident| {
            let mut path = before.clone();
            // `a::{self}` is `a`.
            if name != "self" || before.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        let (name, path) = match tree {
            UseTree::Path(it) => return self.note_use(&it.tree, &with(&it.ident), is_private),
            UseTree::Group(it) => {
                for tree in &it.items {
                    self.note_use(tree, before, is_private);
                }
                return;
            }
            UseTree::Name(it) => {
                let path = with(&it.ident);
                (path.last().cloned().unwrap_or_default(), path)
            }
            UseTree::Rename(it) => (it.rename.to_string(), with(&it.ident)),
            UseTree::Glob(_) => ("*".to_owned(), before.clone()),
        };
        self.here().uses.push(Use {
            name,
            path,
            is_private,
        });
    }

    /// The paths among a macro's arguments, which are no syntax tree.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(it) if it.as_char() == ':' => colons += 1,
                TokenTree::Ident(it) => {
                    if colons != 2 {
                        self.note_path(std::mem::take(&mut path));
                    }
                    path.push(it.to_string());
                    colons = 0;
                }
                other => {
                    if let TokenTree::Group(group) = other {
                        self.note_tokens(group.stream());
                    }
                    self.note_path(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.note_path(path);
    }

    fn note_path(&mut self, path: Names) {
        if !path.is_empty() {
            self.here().paths.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = describe(item);
        if attributes.iter().any(is_test) {
            if let (Item::Mod(_), Some(name)) = (item, name) {
                self.tests.push(self.child(name));
            }
            return;
        }
        match item {
            Item::Use(it) => {
                let is_private = matches!(it.vis, Visibility::Inherited);
                self.note_use(&it.tree, &Names::new(), is_private);
            }
            Item::Mod(it) if it.content.is_some() => {
                let inner = self.child(it.ident.to_string());
                let outer = std::mem::replace(&mut self.module, inner);
                visit::visit_item_mod(self, it);
                self.module = outer;
            }
            _ => {
                if let Some(name) = name.filter(|_| !matches!(item, Item::Mod(_))) {
                    self.here().defined.insert(name);
                }
                visit::visit_item(self, item);
            }
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !item.attrs.iter().any(is_test) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.note_path(names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        self.note_tokens(it.tokens.clone());
        visit::visit_macro(self, it);
    }
}

/// An item's attributes and the name that it defines.
fn describe(item: &Item) -> (&[Attribute], Option<String>) {
    let (attributes, name) = match item {
        Item::Const(it) => (&it.attrs, Some(&it.ident)),
        Item::Enum(it) => (&it.attrs, Some(&it.ident)),
        Item::Fn(it) => (&it.attrs, Some(&it.sig.ident)),
        Item::Impl(it) => (&it.attrs, None),
        Item::Macro(it) => (&it.attrs, it.ident.as_ref()),
        Item::Mod(it) => (&it.attrs, Some(&it.ident)),
        Item::Static(it) => (&it.attrs, Some(&it.ident)),
        Item::Struct(it) => (&it.attrs, Some(&it.ident)),
        Item::Trait(it) => (&it.attrs, Some(&it.ident)),
        Item::Type(it) => (&it.attrs, Some(&it.ident)),
        Item::Union(it) => (&it.attrs, Some(&it.ident)),
        Item::Use(it) => (&it.attrs, None),
        _ => return (&[], None),
    };
    (attributes, name.map(ToString::to_string))
}

/// `#[cfg(test)]`, `#[test]`.
fn is_test(attribute: &Attribute) -> bool {
    let is_cfg_test = || {
        let what = attribute.parse_args::<syn::Ident>();
        attribute.path().is_ident("cfg") && what.is_ok_and(|what| what == "test")
    };
    attribute.path().is_ident("test") || is_cfg_test()
}
