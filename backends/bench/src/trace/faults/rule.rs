//! One fault of a file. `Display` writes it as the file has it.

use std::fmt;
use std::time::Duration;

use crate::trace::record::Side;

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The device's name; `None` for each.
    pub device: Option<String>,
    pub place: Place,
    pub when: When,
    pub action: Action,
}

/// Where it happens. A `None` matches all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Message {
        name: Option<String>,
        from: Option<Side>,
    },
    Kick(u8),
    Call(u8),
}

/// At which of the messages or signals of its place, which are counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    /// So many are left alone first, and not counted.
    pub after: u64,
    pub pick: Pick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Pick {
    Nth(u64),
    Every(u64),
    Probability(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Drop,
    Delay(Duration),
    Double,
    /// Only so many bytes are sent; by default the seed says how many.
    Truncate(Option<usize>),
    /// All bits of the byte at this offset are inverted; by default the seed says which.
    Corrupt(Option<usize>),
    /// It is sent behind the next message of its direction.
    Reorder,
    /// Both sides are hung up to.
    Cut,
    /// From here on its sender is not read from, so that its socket fills.
    Fill,
    /// The backend is told that a region of guest memory, counted round, has lost so many bytes
    /// of its end, or all of them; by default the seed says which region.
    Shrink {
        region: Option<u64>,
        bytes: Option<u64>,
    },
    /// The backend's process gets SIGSTOP.
    Stop,
    /// The backend's process gets SIGKILL.
    Kill,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay(_) => "delay",
            Self::Double => "double",
            Self::Truncate(_) => "truncate",
            Self::Corrupt(_) => "corrupt",
            Self::Reorder => "reorder",
            Self::Cut => "cut",
            Self::Fill => "fill",
            Self::Shrink { .. } => "shrink",
            Self::Stop => "stop",
            Self::Kill => "kill",
        }
    }

    /// For a line of a trace.
    pub fn words(self) -> String {
        match self {
            Self::Delay(time) => format!("delay by {} ms", time.as_millis()),
            Self::Truncate(Some(bytes)) => format!("truncate to {bytes} bytes"),
            Self::Corrupt(Some(byte)) => format!("corrupt byte {byte}"),
            Self::Shrink {
                region: Some(region),
                bytes,
            } => match bytes {
                Some(bytes) => format!("shrink region {region} by {bytes} bytes"),
                None => format!("shrink, without region {region}"),
            },
            _ => self.name().to_owned(),
        }
    }

    /// A signal of an eventfd has no bytes, no order and no socket.
    pub fn is_for_signals(self) -> bool {
        !matches!(
            self,
            Self::Truncate(_) | Self::Corrupt(_) | Self::Reorder | Self::Fill
        )
    }

    pub fn needs_process(self) -> bool {
        matches!(self, Self::Stop | Self::Kill)
    }
}

/// Keys and values of the action, one a line.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "do = \"{}\"", self.name())?;
        match self {
            Self::Delay(time) => write!(f, "\nmilliseconds = {}", time.as_millis()),
            Self::Truncate(Some(bytes)) => write!(f, "\nbytes = {bytes}"),
            Self::Corrupt(Some(byte)) => write!(f, "\nbyte = {byte}"),
            Self::Shrink { region, bytes } => {
                if let Some(region) = region {
                    write!(f, "\nregion = {region}")?;
                }
                match bytes {
                    Some(bytes) => write!(f, "\nbytes = {bytes}"),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[fault]]")?;
        if let Some(device) = &self.device {
            writeln!(f, "device = {}", toml::Value::from(&**device))?;
        }
        match &self.place {
            Place::Message { name, from } => {
                writeln!(f, "message = \"{}\"", name.as_deref().unwrap_or("any"))?;
                if let Some(from) = from {
                    writeln!(f, "from = \"{}\"", from.name())?;
                }
            }
            Place::Kick(queue) => writeln!(f, "kick = {queue}")?,
            Place::Call(queue) => writeln!(f, "call = {queue}")?,
        }
        if self.when.after > 0 {
            writeln!(f, "after = {}", self.when.after)?;
        }
        match self.when.pick {
            Pick::Nth(nth) => writeln!(f, "nth = {nth}")?,
            Pick::Every(every) => writeln!(f, "every = {every}")?,
            Pick::Probability(probability) => writeln!(f, "probability = {probability:?}")?,
        }
        writeln!(f, "{}", self.action)
    }
}
