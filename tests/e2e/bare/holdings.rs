//! What a process has of its host: before and after something that is to leave no trace.

use tests::process::{Line, Process};

/// What a process has, and has said.
#[derive(Clone, Copy)]
pub struct Holdings {
    pub resident_kib: u64,
    /// Of the resident memory, what is the process's own: no guest RAM and no file.
    pub anonymous_kib: u64,
    pub descriptors: u64,
    pub warnings: u64,
}

impl Holdings {
    pub fn of(process: &Process) -> Self {
        let proc = format!("/proc/{}", process.pid());
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let kib = |key| {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            let number = value.and_then(|value| value.split_whitespace().next());
            number.unwrap().parse().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("{proc}/fd")).unwrap();
        let warns = |line: &&Line| line.text.contains(" WARN ") || line.text.contains(" ERROR ");
        Self {
            resident_kib: kib("VmRSS:"),
            anonymous_kib: kib("RssAnon:"),
            descriptors: descriptors.count() as u64,
            warnings: process.lines().iter().filter(warns).count() as u64,
        }
    }
}
