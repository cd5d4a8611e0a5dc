//! `dump-guest-memory`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

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
    if let Some(format) = format.filter(|format| format != "elf") {
        let text = format!("format '{format}' is not supported, only 'elf' is");
        return Err(QmpError::generic(text));
    }
    match protocol.split_once(':') {
        Some(("file", path)) => save(control, range, |snapshot, range| {
            snapshot.save_part(Path::new(path), range)
        }),
        Some(("fd", name)) => {
            let not_found = || format!("File descriptor named '{name}' has not been found");
            let file = files.remove(name);
            let file = file.ok_or_else(|| QmpError::generic(not_found()))?;
            save(control, range, |snapshot, range| {
                let output = Output::to(file).map_err(Error::WriteTo)?;
                snapshot.write(output, range).map_err(Error::WriteTo)
            })
        }
        _ => {
            let text = "parameter 'protocol' must start with 'file:' or 'fd:'";
            Err(QmpError::generic(text))
        }
    }
}

/// The physical addresses that are asked for.
fn range(arguments: &mut Arguments) -> Result<Range<u64>, QmpError> {
    let begin = arguments.optional_number("begin")?;
    let length = arguments.optional_number("length")?;
    match (begin, length) {
        (None, None) => Ok(0..u64::MAX),
        (Some(begin), Some(length)) => Ok(begin..begin.saturating_add(length)),
        (Some(_), None) => Err(missing("length")),
        (None, Some(_)) => Err(missing("begin")),
    }
}

fn save(
    control: &Control,
    range: Range<u64>,
    save: impl FnOnce(&Snapshot<'_>, Range<u64>) -> Result<dump::Summary, Error>,
) -> Result<Value, QmpError> {
    let save = |snapshot: &Snapshot<'_>| save(snapshot, range);
    let saved = dump::with_stopped(control.vcpus(), control.memory(), save);
    let saved = saved.map_err(|error| QmpError::generic(chain(&error)))?;
    tracing::info!("QMP: dumped {saved}");
    Ok(json!({}))
}
