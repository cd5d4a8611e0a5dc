//! A crash dump by the control API.

use std::path::PathBuf;

use gdb::inspect::DumpFormat;
use host_io::errors::chain;
use serde_json::{Value, json};

use super::http::{Status, problem};
use super::query::Query;
use crate::control::Control;
use crate::dump::{self, Error};

/// Writes RAM and registers to the file that `query` names. A guest that runs is stopped
/// meanwhile.
pub fn dump(control: &Control, query: &Query) -> (Status, Value) {
    let Some(path) = file(query) else {
        let text = "a dump needs an absolute path: POST /v1/dump?file=PATH";
        return (Status::BadRequest, problem(text));
    };
    let Some(format) = format(query) else {
        let text = "the format of a dump is elf or kdump: POST /v1/dump?file=PATH&format=kdump";
        return (Status::BadRequest, problem(text));
    };
    let save = |snapshot: &dump::Snapshot<'_>| snapshot.save(&path, format);
    match dump::with_stopped(control.vcpus(), control.memory(), save) {
        Ok(saved) => {
            let answer = json!({
                "file": path.to_string_lossy(),
                "ram": saved.ram,
                "written": saved.written,
                "linux": saved.has_kernel,
                "milliseconds": saved.elapsed.as_millis() as u64,
                "text": saved.to_string(),
            });
            (Status::Ok, answer)
        }
        Err(error @ (Error::Debugged | Error::Open { .. })) => {
            (Status::Conflict, problem(chain(&error)))
        }
        Err(error) => (Status::Failed, problem(chain(&error))),
    }
}

/// This program may run in another directory than whoever asks.
fn file(query: &Query) -> Option<PathBuf> {
    let path = PathBuf::from(query.get("file")?);
    path.is_absolute().then_some(path)
}

fn format(query: &Query) -> Option<DumpFormat> {
    match query.get("format").map(|format| format.as_encoded_bytes()) {
        None | Some(b"elf") => Some(DumpFormat::Elf),
        Some(b"kdump") => Some(DumpFormat::Kdump),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text, &["file", "format"]).unwrap()
    }

    #[test]
    fn a_dump_is_an_elf_file_unless_another_format_is_asked_for() {
        let format = |text| format(&query(text));
        assert_eq!(format("file=/a"), Some(DumpFormat::Elf));
        assert_eq!(format("format=elf&file=/a"), Some(DumpFormat::Elf));
        assert_eq!(format("file=/a&format=kdump"), Some(DumpFormat::Kdump));
        assert_eq!(format("file=/a&format=zip"), None);
    }

    #[test]
    fn a_file_is_named_by_its_absolute_path() {
        let file = |text| file(&query(text));
        assert_eq!(file("file=/tmp/a%20b"), Some(PathBuf::from("/tmp/a b")));
        assert_eq!(file("file=%2Fa"), Some(PathBuf::from("/a")));
        for text in ["", "file=a", "format=elf"] {
            assert_eq!(file(text), None, "{text:?}");
        }
    }
}
