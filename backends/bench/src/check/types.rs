//! What a check is, and what it may say.

use std::fmt;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use crate::device::DeviceType;
use crate::driver::DriverError;

/// How binding a rule is. Where the documents leave something open it is at most a SHOULD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Must,
    Should,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        })
    }
}

/// Where a rule is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A section of the vhost-user document (QEMU's docs/interop/vhost-user.rst).
    VhostUser(&'static str),
    /// A section of virtio 1.4 (committee specification 01).
    Virtio(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VhostUser(section) => write!(f, "vhost-user, \"{section}\""),
            Self::Virtio(section) => write!(f, "virtio 1.4, {section}"),
        }
    }
}

/// What a backend has to have for a check to apply.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A feature by its number, with its name.
    Feature(u32, &'static str),
    Protocol(Protocol),
    /// The device is of this type.
    Type(DeviceType),
    /// A request is known that the type completes by itself.
    Sample,
    /// The sample of the type is answered by the same bytes each time.
    Repeats,
    /// As many queues.
    Queues(usize),
    /// Its process can be killed and started again.
    Restarts,
    /// One process serves one connection after another.
    Reconnects,
}

/// What a check is listed and reported by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// `theme.rule`.
    pub name: &'static str,
    pub level: Level,
    pub source: Source,
    /// What is demanded, in the words of the source as far as they serve.
    pub rule: &'static str,
}

/// A rule, and the function that finds out whether a backend keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// `theme.rule`.
    pub name: &'static str,
    pub level: Level,
    pub source: Source,
    /// What is demanded, in the words of the source as far as they serve.
    pub rule: &'static str,
    pub needs: &'static [Need],
    pub run: fn(&Bench) -> Verdict,
}

impl Check {
    pub fn heading(&self) -> Heading {
        Heading {
            name: self.name,
            level: self.level,
            source: self.source,
            rule: self.rule,
        }
    }

    /// Whether it is about devices of this type: either about all, or about these alone.
    pub fn concerns(&self, device_type: DeviceType) -> bool {
        let is_other = |need: &Need| matches!(need, Need::Type(other) if *other != device_type);
        !self.needs.iter().any(is_other)
    }
}

/// Why a check did not pass.
#[derive(Debug)]
pub enum Fault {
    /// The backend does not keep the rule.
    Broken(String),
    /// It cannot be told whether it does: something else failed first.
    Driver(DriverError),
    /// The rule does not apply to this backend.
    Skip(String),
}

/// `Ok` when the backend keeps the rule.
pub type Verdict = Result<(), Fault>;

impl From<DriverError> for Fault {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl Fault {
    pub fn broken(text: impl Into<String>) -> Self {
        Self::Broken(text.into())
    }

    pub fn skip(text: impl Into<String>) -> Self {
        Self::Skip(text.into())
    }
}

/// Fails with a text when a condition does not hold.
pub fn demand(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(Fault::Broken(text()))
}
