//! `outboard-manual DIR`: writes man pages and shell completions of all programs, out of their
//! command lines, as `make install` and the Debian package have them below `share`.

mod completions;
mod notes;
mod page;
mod programs;
mod synopsis;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;

/// Write the man pages and shell completions of all programs.
#[derive(Debug, Parser)]
#[command(name = "outboard-manual", version)]
struct Args {
    /// Directory that gets man/, bash-completion/, zsh/ and fish/
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Date of the man pages, such as 2026-12-01
    #[arg(long, value_name = "DATE", default_value = "")]
    date: String,
}

fn main() -> anyhow::Result<()> {
    let Args { directory, date } = Args::parse();
    for mut program in programs::all() {
        program.build();
        for page in page::pages(&program, &date)? {
            write(&directory.join("man/man1").join(&page.file), &page.text)?;
        }
        for script in completions::scripts(&program) {
            write(&directory.join(&script.path), &script.text)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
