//! Refusals, in QEMU's words.

use serde_json::{Value, json};

/// A request is not carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QmpError {
    /// Of the class that QEMU has for commands that do not exist, or not yet.
    #[error("{0}")]
    NoCommand(String),
    #[error("{0}")]
    Generic(String),
}

impl QmpError {
    pub fn generic(text: impl Into<String>) -> Self {
        Self::Generic(text.into())
    }

    /// As the member `error` of an answer.
    pub fn value(&self) -> Value {
        let class = match self {
            Self::NoCommand(_) => "CommandNotFound",
            Self::Generic(_) => "GenericError",
        };
        json!({ "class": class, "desc": self.to_string() })
    }
}
