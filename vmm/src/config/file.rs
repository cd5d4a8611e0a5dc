//! A configuration file, and where in it something stands.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::Error;
use super::keys::Keys;

/// Longest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// One that has been read.
pub struct File {
    path: PathBuf,
    text: String,
    keys: Keys,
}

impl File {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
        let keys = toml::from_str(&text).map_err(|error: toml::de::Error| Error::Toml {
            path: path.to_owned(),
            line: line(&text, error.span().map_or(0, |span| span.start)),
            problem: error.message().to_owned(),
        })?;
        let path = path.to_owned();
        Ok(Self { path, text, keys })
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// `error` with its line, where what is wrong stands in this file and not in `args`, the
    /// command line.
    pub fn locate(&self, error: Error, args: &Keys) -> Error {
        let found = match (&error, error.key()) {
            (Error::Device { spec, .. }, _) => self.device(spec),
            (_, Some(key)) if !args.has(key) => self.key(key),
            _ => None,
        };
        match found {
            None => error,
            Some(start) => Error::InFile {
                path: self.path.clone(),
                line: line(&self.text, start),
                source: Box::new(error),
            },
        }
    }

    /// Where a key is, in bytes.
    fn key(&self, name: &str) -> Option<usize> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut keys = table.get_ref().keys();
        let key = keys.find(|key| key.get_ref() == name)?;
        Some(key.span().start)
    }

    /// Where the device `spec` is.
    fn device(&self, spec: &str) -> Option<usize> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut keys = table.get_ref().iter();
        let (_, value) = keys.find(|(key, _)| key.get_ref() == "device")?;
        let DeValue::Array(devices) = value.get_ref() else {
            return None;
        };
        let number = self.keys.device.iter().position(|device| device == spec)?;
        Some(devices.get(number)?.span().start)
    }
}

/// The number of the line of byte `start`, from 1.
fn line(text: &str, start: usize) -> usize {
    text[..start].matches('\n').count() + 1
}

/// A file of whatever kind, if it has an end.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        let problem = format!("it has more than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}
