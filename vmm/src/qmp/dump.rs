//! `dump-guest-memory`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use gdb::inspect::DumpFormat;
use host_io::errors::chain;
use serde_json::{Value, json};

use super::arguments::{Arguments, missing};
use super::error::QmpError;
use crate::control::Control;
use crate::dump::{self, Error, Output, Snapshot};

/// Dumps to a path or to one of `files`, which is gone then.
pub fn dump(
    control: &Control,
    mut arguments: Arguments,
    files: &mut BTreeMap<String, File>,
) -> Result<Value, QmpError> {
    let paging = arguments.flag("paging")?;
    let protocol = arguments.text("protocol")?;
    // It is done before the answer in any case.
    arguments.optional_flag("detach")?;
    let range = range(&mut arguments)?;
    let format = arguments.optional_text("format")?;
    arguments.end()?;
    if paging {
        let text = "'paging' is not supported: kernel addresses are in the dump without it";
        return Err(QmpError::generic(text));
    }
    let what = What::new(range, format.as_deref())?;
    match protocol.split_once(':') {
        Some(("file", path)) => save(control, |snapshot| match what {
            What::All(format) => snapshot.save(Path::new(path), format),
            What::Part(range) => snapshot.save_part(Path::new(path), range),
        }),
        Some(("fd", name)) => {
            let not_found = || format!("File descriptor named '{name}' has not been found");
            let file = files.remove(name);
            let file = file.ok_or_else(|| QmpError::generic(not_found()))?;
            save(control, |snapshot| {
                let output = Output::to(file).map_err(Error::WriteTo)?;
                let written = match what {
                    What::All(format) => snapshot.write(output, format),
                    What::Part(range) => snapshot.write_part(output, range),
                };
                written.map_err(Error::WriteTo)
            })
        }
        _ => {
            let text = "parameter 'protocol' must start with 'file:' or 'fd:'";
            Err(QmpError::generic(text))
        }
    }
}

/// What is to be dumped. A part has one format.
enum What {
    All(DumpFormat),
    Part(Range<u64>),
}

impl What {
    fn new(range: Option<Range<u64>>, format: Option<&str>) -> Result<Self, QmpError> {
        match (format.unwrap_or("elf"), range) {
            ("elf", None) => Ok(Self::All(DumpFormat::Elf)),
            ("elf", Some(range)) => Ok(Self::Part(range)),
            ("kdump-raw-zlib", None) => Ok(Self::All(DumpFormat::Kdump)),
            ("kdump-raw-zlib", Some(_)) => {
                let text = "kdump-compressed format doesn't support paging or filter";
                Err(QmpError::generic(text))
            }
            (format, _) => {
                let text = format!(
                    "format '{format}' is not supported, only 'elf' and 'kdump-raw-zlib' are"
                );
                Err(QmpError::generic(text))
            }
        }
    }
}

/// The physical addresses that are asked for.
fn range(arguments: &mut Arguments) -> Result<Option<Range<u64>>, QmpError> {
    let begin = arguments.optional_number("begin")?;
    let length = arguments.optional_number("length")?;
    match (begin, length) {
        (None, None) => Ok(None),
        (Some(begin), Some(length)) => Ok(Some(begin..begin.saturating_add(length))),
        (Some(_), None) => Err(missing("length")),
        (None, Some(_)) => Err(missing("begin")),
    }
}

fn save(
    control: &Control,
    save: impl FnOnce(&Snapshot<'_>) -> Result<dump::Summary, Error>,
) -> Result<Value, QmpError> {
    let saved = dump::with_stopped(control.vcpus(), control.memory(), save);
    let saved = saved.map_err(|error| QmpError::generic(chain(&error)))?;
    tracing::info!("QMP: dumped {saved}");
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_ram_is_dumped_in_one_format_only() {
        let what = |format, range| match What::new(range, format) {
            Ok(What::All(format)) => format!("all, {format:?}"),
            Ok(What::Part(range)) => format!("{range:?}"),
            Err(error) => error.value()["desc"].to_string(),
        };
        assert_eq!(what(None, None), "all, Elf");
        assert_eq!(what(Some("elf"), Some(1..2)), "1..2");
        assert_eq!(what(Some("kdump-raw-zlib"), None), "all, Kdump");
        let part = what(Some("kdump-raw-zlib"), Some(1..2));
        assert!(part.contains("doesn't support paging or filter"), "{part}");
        let other = what(Some("kdump-lzo"), None);
        assert!(
            other.contains("only 'elf' and 'kdump-raw-zlib' are"),
            "{other}"
        );
    }
}
