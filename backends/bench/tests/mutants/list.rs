//! The list of breaks: `mutants.toml` beside this file.

use serde::Deserialize;

/// One break of a backend, and who has to notice it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// The source file, below `backends/src`.
    pub file: String,
    /// An expression, or whole statements, that the file has exactly once.
    pub old: String,
    /// What stands there instead. Nothing, where statements are left out.
    pub new: String,
    /// The program that is broken by it, without the `outboard-`.
    #[serde(default = "blk")]
    pub program: String,
    /// The check that names the rule.
    pub check: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

fn blk() -> String {
    "blk".to_owned()
}

/// All of them.
pub fn read() -> Vec<Mutant> {
    let list: List = toml::from_str(include_str!("mutants.toml")).expect("mutants.toml");
    list.mutant
}

impl Mutant {
    /// The name for people: the place, and what stands there.
    pub fn name(&self) -> String {
        let words: Vec<_> = self.new.split_whitespace().collect();
        let new = match words.as_slice() {
            [] => "nothing".to_owned(),
            words => words.join(" "),
        };
        let old: Vec<_> = self.old.split_whitespace().collect();
        format!("{}: `{}` made `{new}`", self.file, old.join(" "))
    }
}
