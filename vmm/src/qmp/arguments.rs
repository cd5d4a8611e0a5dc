//! The arguments of a command, each of which has a type, and none of which may be left over.

use serde_json::{Map, Value};

use super::error::QmpError;

pub struct Arguments(Map<String, Value>);

impl Arguments {
    pub fn new(arguments: Map<String, Value>) -> Self {
        Self(arguments)
    }

    pub fn text(&mut self, name: &str) -> Result<String, QmpError> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    pub fn optional_text(&mut self, name: &str) -> Result<Option<String>, QmpError> {
        self.take(name, "string", |value| value.as_str().map(str::to_owned))
    }

    pub fn flag(&mut self, name: &str) -> Result<bool, QmpError> {
        self.optional_flag(name)?.ok_or_else(|| missing(name))
    }

    pub fn optional_flag(&mut self, name: &str) -> Result<Option<bool>, QmpError> {
        self.take(name, "boolean", Value::as_bool)
    }

    pub fn optional_number(&mut self, name: &str) -> Result<Option<u64>, QmpError> {
        self.take(name, "integer", Value::as_u64)
    }

    /// There is no other.
    pub fn end(self) -> Result<(), QmpError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(QmpError::generic(format!(
                "Parameter '{name}' is unexpected"
            ))),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        kind: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, QmpError> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let wrong = || format!("Invalid parameter type for '{name}', expected: {kind}");
        let value = convert(&value).ok_or_else(|| QmpError::generic(wrong()))?;
        Ok(Some(value))
    }
}

pub fn missing(name: &str) -> QmpError {
    QmpError::generic(format!("Parameter '{name}' is missing"))
}
