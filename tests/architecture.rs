//! The crates depend on each other as `docs/architecture.md` says and not
//! otherwise.

use std::collections::BTreeSet;
use std::path::Path;

/// Crate, the siblings it may use, and crates it must not use.
const EDGES: [(&str, &[&str], &[&str]); 4] = [
    ("vmm", &["devices", "gdb"], &[]),
    ("devices", &[], &["kvm-ioctls", "kvm-bindings"]),
    ("backends", &[], &["kvm-ioctls", "kvm-bindings"]),
    ("gdb", &[], &["kvm-ioctls", "kvm-bindings", "vm-memory"]),
];
const SIBLINGS: [&str; 5] = ["vmm", "devices", "backends", "gdb", "tests"];

/// Names under `[dependencies]`, `[build-dependencies]` and per-target tables.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = std::fs::read_to_string(root.join(krate).join("Cargo.toml")).unwrap();
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
