//! Where this program was called, which is where a guest's command runs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use guest_init::job::Window;
use rustix::termios::tcgetwinsize;

/// Of this process, for the command.
const ENVIRONMENT: [&str; 7] = ["HOME", "LANG", "PATH", "SHELL", "TERM", "USER", "COLORTERM"];
pub fn directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}

pub fn environment() -> BTreeMap<String, String> {
    let values = ENVIRONMENT.iter().filter_map(|name| {
        let value = std::env::var(name).ok()?;
        Some(((*name).to_owned(), value))
    });
    values.collect()
}

/// Of the terminal on standard input and output, if both are one.
pub fn window() -> Option<Window> {
    let stdout = io::stdout();
    if !io::stdin().is_terminal() || !stdout.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(&stdout).ok()?;
    Some(Window {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}
