//! Reads a trace back, in whichever form.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::trace::format::{read_json, read_pcapng};
use crate::trace::record::{Record, Start, VERSION};

#[derive(Clone, Debug)]
pub struct Trace {
    pub start: Start,
    pub records: Vec<Record>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the trace {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is not a trace that can be read back; those of --format json and pcapng can",
        .path.display()
    )]
    Form { path: PathBuf, source: io::Error },
    #[error(
        "{} has records of version {found}; this program reads version {VERSION}",
        .path.display()
    )]
    Version { path: PathBuf, found: u32 },
}

impl Trace {
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).and_then(|file| {
            let mut file = BufReader::new(file);
            let is_json = file.fill_buf()?.first() == Some(&b'{');
            Ok((file, is_json))
        });
        let (file, is_json) = file.map_err(|source| ReadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let read = if is_json {
            read_json(file)
        } else {
            read_pcapng(file)
        };
        let (start, records) = read.map_err(|source| ReadError::Form {
            path: path.to_owned(),
            source,
        })?;
        match start.trace {
            VERSION => Ok(Self { start, records }),
            found => Err(ReadError::Version {
                path: path.to_owned(),
                found,
            }),
        }
    }
}
