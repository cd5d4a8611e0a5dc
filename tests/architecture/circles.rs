//! Files that import each other, straight or through others.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::Imports;

/// Each greatest set of files of which every one reaches every other.
pub fn circles(imports: &Imports) -> BTreeSet<Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        next.entry(from).or_default().push(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next
        .keys()
        .map(|&file| (file, reached_from(file, &next)))
        .collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|it| it.contains(to));
    let circle_of = |file: &str| -> Vec<String> {
        let others = reached[file].iter().filter(|other| reaches(other, file));
        others.map(|&other| other.to_owned()).collect()
    };
    let files = next.keys().filter(|file| reaches(file, file));
    files.map(|file| circle_of(file)).collect()
}

fn reached_from<'a>(file: &str, next: &BTreeMap<&str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut rest: Vec<&str> = next.get(file).cloned().unwrap_or_default();
    while let Some(file) = rest.pop() {
        if reached.insert(file) {
            rest.extend(next.get(file).into_iter().flatten());
        }
    }
    reached
}

/// What ties the files of a circle, an import a line.
pub fn ties(circle: &[String], imports: &Imports) -> String {
    let is_inside = |file: &String| circle.contains(file);
    let inside = imports
        .iter()
        .filter(|((from, to), _)| is_inside(from) && is_inside(to));
    let lines = inside.map(|((from, to), names)| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        format!("    {from} takes {} from {to}\n", names.join(", "))
    });
    lines.collect()
}
