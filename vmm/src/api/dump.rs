//! A crash dump by the control API.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use gdb::inspect::DumpFormat;
use host_io::errors::chain;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::http::{Status, problem};
use crate::control::Control;
use crate::dump::{self, Error};

/// Writes RAM and registers to the file that `query` names. A guest that runs is stopped
/// meanwhile.
pub fn dump(control: &Control, query: &str) -> (Status, Value) {
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
fn file(query: &str) -> Option<PathBuf> {
    let mut fields = query.split('&');
    let path = fields.find_map(|field| field.strip_prefix("file="))?;
    let path = percent_decode_str(path).collect();
    let path = PathBuf::from(OsString::from_vec(path));
    path.is_absolute().then_some(path)
}

fn format(query: &str) -> Option<DumpFormat> {
    let mut fields = query.split('&');
    match fields.find_map(|field| field.strip_prefix("format=")) {
        None | Some("elf") => Some(DumpFormat::Elf),
        Some("kdump") => Some(DumpFormat::Kdump),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_an_elf_file_unless_another_format_is_asked_for() {
        assert_eq!(format("file=/a"), Some(DumpFormat::Elf));
        assert_eq!(format("format=elf&file=/a"), Some(DumpFormat::Elf));
        assert_eq!(format("file=/a&format=kdump"), Some(DumpFormat::Kdump));
        assert_eq!(format("file=/a&format=zip"), None);
    }

    #[test]
    fn a_file_is_named_by_its_absolute_path() {
        assert_eq!(file("file=/tmp/a%20b"), Some(PathBuf::from("/tmp/a b")));
        assert_eq!(file("x=1&file=%2Fa"), Some(PathBuf::from("/a")));
        for query in ["", "file=", "file=a", "file", "xfile=/a"] {
            assert_eq!(file(query), None, "{query:?}");
        }
    }
}
