//! What is behind a request's question mark.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use percent_encoding::percent_decode_str;

/// Parameters that a route knows, each at most once.
#[derive(Debug, Default)]
pub struct Query(Vec<(&'static str, OsString)>);

/// A parameter that cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no parameter {name:?}; {}", takes(.known))]
    Unknown {
        name: String,
        known: &'static [&'static str],
    },
    #[error("the parameter {0} has no value: write {0}=VALUE")]
    NoValue(&'static str),
    #[error("the parameter {0} is given twice")]
    Twice(&'static str),
}

fn takes(names: &[&str]) -> String {
    match names {
        [] => "this request takes none".into(),
        names => format!("this request takes {}", names.join(", ")),
    }
}

impl Query {
    /// Takes `text` apart, which has the parameters `known` and no others.
    pub fn parse(text: &str, known: &'static [&'static str]) -> Result<Self, Error> {
        let mut query = Self::default();
        for field in text.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (field, None),
            };
            let Some(name) = known.iter().find(|known| **known == name) else {
                let name = name.to_owned();
                return Err(Error::Unknown { name, known });
            };
            let value = value.filter(|value| !value.is_empty());
            let value = value.ok_or(Error::NoValue(name))?;
            if query.get(name).is_some() {
                return Err(Error::Twice(name));
            }
            let value = percent_decode_str(value).collect();
            query.0.push((name, OsString::from_vec(value)));
        }
        Ok(query)
    }

    /// A parameter's value, which is not empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let mut fields = self.0.iter();
        let (_, value) = fields.find(|(known, _)| *known == name)?;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["file", "format"];

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("file=%2Ftmp/a%20b%26&format=elf", KNOWN).unwrap();
        assert_eq!(query.get("file"), Some(OsStr::new("/tmp/a b&")));
        assert_eq!(query.get("format"), Some(OsStr::new("elf")));
        assert_eq!(Query::parse("", KNOWN).unwrap().get("file"), None);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let error = |text| Query::parse(text, KNOWN).unwrap_err().to_string();
        assert_eq!(
            error("file=/a&x=1"),
            "there is no parameter \"x\"; this request takes file, format"
        );
        assert!(error("File=/a").contains("no parameter"));
        assert_eq!(
            error("file"),
            "the parameter file has no value: write file=VALUE"
        );
        assert_eq!(error("file="), error("file"));
        assert!(error("file=/a&file=/b").contains("given twice"));
        let none = Query::parse("a=b", &[]).unwrap_err().to_string();
        assert!(none.contains("this request takes none"), "{none}");
    }
}
