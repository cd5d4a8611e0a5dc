//! The crates depend on each other as `docs/architecture.md` says and not
//! otherwise, and no two files of a crate import each other.

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/imports.rs"]
mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::circles::{circles, ties};
use self::imports::Modules;

/// The folder of a crate, the siblings it may use, and crates it must not use.
const EDGES: [(&str, &[&str], &[&str]); 10] = [
    (
        "vmm",
        &[
            "devices",
            "diagnosis",
            "gdb",
            "guest-init",
            "host-io",
            "workbench",
        ],
        &[],
    ),
    // It runs in the guest.
    (
        "vmm/init",
        &[],
        &["kvm-ioctls", "kvm-bindings", "vm-memory"],
    ),
    ("devices", &["vhost-user-wire", "host-io"], &KVM),
    (
        "devices/wire",
        &[],
        &["kvm-ioctls", "kvm-bindings", "virtio-queue"],
    ),
    ("devices/host", &[], &KVM),
    (
        "devices/diagnosis",
        &[],
        &["kvm-ioctls", "kvm-bindings", "vm-memory", "virtio-queue"],
    ),
    ("backends", &["vhost-user-wire", "host-io"], &KVM),
    // A judge that shared the ring code of its subjects would share their mistakes.
    (
        "backends/bench",
        &["diagnosis", "vhost-user-wire", "host-io"],
        &[
            "kvm-ioctls",
            "kvm-bindings",
            "virtio-queue",
            "vhost-user-backend",
        ],
    ),
    (
        "gdb",
        &["diagnosis", "host-io"],
        &["kvm-ioctls", "kvm-bindings", "vm-memory"],
    ),
    ("docs/manual", &["backends", "vmm", "workbench"], &KVM),
];
const KVM: [&str; 2] = ["kvm-ioctls", "kvm-bindings"];
const SIBLINGS: [&str; 11] = [
    "vmm",
    "guest-init",
    "devices",
    "diagnosis",
    "vhost-user-wire",
    "host-io",
    "backends",
    "workbench",
    "gdb",
    "manual",
    "tests",
];

fn directory(krate: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate)
}

/// Names under `[dependencies]`, `[build-dependencies]` and per-target tables.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(directory(krate).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut names = BTreeSet::new();
    collect(&manifest, &mut names);
    names
}

fn collect(table: &toml::Table, names: &mut BTreeSet<String>) {
    for (key, value) in table {
        let Some(inner) = value.as_table() else {
            continue;
        };
        match key.as_str() {
            "dependencies" | "build-dependencies" => names.extend(inner.keys().cloned()),
            "target" => inner
                .values()
                .filter_map(|v| v.as_table())
                .for_each(|t| collect(t, names)),
            _ => {}
        }
    }
}

#[test]
fn crates_depend_on_each_other_as_designed() {
    for (krate, allowed, forbidden) in EDGES {
        let found = dependencies(krate);
        assert!(!found.is_empty(), "{krate}: no dependencies read");
        for sibling in SIBLINGS {
            let is_used = found.contains(sibling);
            assert!(
                !is_used || allowed.contains(&sibling),
                "{krate} must not use {sibling}"
            );
        }
        for name in forbidden {
            assert!(!found.contains(*name), "{krate} must not use {name}");
        }
    }
}

#[test]
fn files_do_not_import_each_other() {
    let mut report = String::new();
    for (krate, ..) in EDGES {
        let modules = Modules::read(&directory(krate).join("src"));
        assert!(!modules.is_empty(), "{krate}: no files read");
        let imports = modules.imports();
        for circle in circles(&imports) {
            report += &format!("{krate}: {circle:?}\n{}", ties(&circle, &imports));
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// The circles among files, each a path and its text.
fn circles_among(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    let files: Vec<_> = files.iter().map(owned).collect();
    let imports = Modules::parse(&files).imports();
    circles(&imports).into_iter().collect()
}

#[test]
fn circles_are_found_however_the_names_are_written() {
    const A: &str = "use crate::b::B; pub struct A;";
    for b in [
        "use crate::{c, a::{x::X, A as Other}}; pub struct B;",
        "use super::a::*; pub struct B; fn f(_: A) {}",
        "pub struct B; fn f() { crate::a::A; }",
        "use super::a; pub struct B; impl From<a::A> for B {}",
        r#"pub struct B; fn f() { println!("{:?}", super::a::A); }"#,
        "mod inner { use crate::a::A; } pub struct B;",
        "pub use super::a::A; pub struct B(A);",
        "use crate::A; pub struct B;",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", A),
            ("b.rs", b),
        ];
        assert_eq!(circles_among(&files), [["a.rs", "b.rs"]], "{b}");
    }
}

#[test]
fn circles_run_through_other_files_and_parents() {
    let through = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "use crate::a::A; pub struct C;"),
    ];
    assert_eq!(circles_among(&through), [["a.rs", "b.rs", "c.rs"]]);
    let parent = [
        ("lib.rs", "mod p;"),
        ("p/mod.rs", "mod child; pub struct P(child::C);"),
        ("p/child.rs", "use super::P; pub struct C;"),
    ];
    assert_eq!(circles_among(&parent), [["p/child.rs", "p/mod.rs"]]);
}

#[test]
fn declarations_re_exports_and_tests_make_no_circle() {
    let files = [
        (
            "lib.rs",
            "mod p; pub use p::Second; #[cfg(test)] mod testing;",
        ),
        (
            "p/mod.rs",
            "mod first; mod second; pub use first::First; pub use second::Second;",
        ),
        (
            "p/first.rs",
            "pub struct First; #[cfg(test)] mod tests { use super::super::Second; }",
        ),
        ("p/second.rs", "use super::First; pub struct Second;"),
        ("p/first_test.rs", "use super::First;"),
        ("testing.rs", "use crate::Second;"),
    ];
    assert_eq!(circles_among(&files), Vec::<Vec<String>>::new());
}
