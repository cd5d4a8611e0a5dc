//! A device's SPEC:
//! `TYPE,socket=PATH|listen=PATH|exec="COMMAND"[,queues=N][,queue-size=N][,id=NAME][,deadline=SECONDS][,reconnect=off|SECONDS][,features=-NAME,-NAME…]`.

use std::path::PathBuf;
use std::time::Duration;

use devices::vhost_user::{self, Address, Options, Reconnect};
use devices::virtio::{DeviceType, features};

use super::error::Error;
use crate::layout;
use crate::supervisor::CommandLine;

/// A virtio device and where its backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub options: Options,
    /// The command that starts the backend, if it is started from here.
    pub command: Option<CommandLine>,
}

/// All devices of a machine, in their order.
pub fn parse_all(specs: &[String]) -> Result<Vec<Device>, Error> {
    if specs.len() > layout::VIRTIO_GSIS.len() {
        return Err(Error::TooManyDevices { asked: specs.len() });
    }
    let mut devices: Vec<Device> = Vec::new();
    for spec in specs {
        let device = parse(spec, &devices).map_err(|problem| Error::Device {
            spec: spec.to_owned(),
            problem,
        })?;
        let id = &device.options.id;
        if devices.iter().any(|other| other.options.id == *id) {
            return Err(Error::DuplicateId(id.clone()));
        }
        devices.push(device);
    }
    Ok(devices)
}

fn parse(spec: &str, earlier: &[Device]) -> Result<Device, String> {
    let mut parts = split(spec)?.into_iter();
    let first = parts.next().unwrap_or_default();
    let device_type: DeviceType = first
        .strip_prefix("type=")
        .unwrap_or(&first)
        .parse()
        .map_err(|error| format!("{error}"))?;
    let same_type = |other: &&Device| other.options.device_type == device_type;
    let number = earlier.iter().filter(same_type).count();
    let mut draft = Draft {
        options: Options::new(
            format!("{device_type}{number}"),
            device_type,
            PathBuf::new(),
        ),
        address: None,
        command: None,
        deadline: None,
        in_features: false,
    };
    for part in parts {
        draft.take(&part)?;
    }
    let Some(address) = draft.address else {
        return Err("it has no backend; add socket=PATH or exec=\"COMMAND\"".into());
    };
    draft.options.address = address;
    if let Some(deadline) = draft.deadline {
        draft.options.deadline = deadline;
    }
    // Started programs may need longer than the default before they listen.
    if draft.deadline.is_some() || draft.command.is_some() {
        draft.options.connect_deadline = draft.options.deadline;
    }
    Ok(Device {
        options: draft.options,
        command: draft.command,
    })
}

/// The result of the parts so far.
struct Draft {
    options: Options,
    address: Option<Address>,
    command: Option<CommandLine>,
    deadline: Option<Duration>,
    /// Inside the list of features, in which each further name has a minus sign.
    in_features: bool,
}

impl Draft {
    fn take(&mut self, part: &str) -> Result<(), String> {
        let listed = part.strip_prefix("features=");
        self.in_features = listed.is_some() || self.in_features && part.starts_with('-');
        if self.in_features {
            return self.mask(listed.unwrap_or(part));
        }
        let (key, value) = part
            .split_once('=')
            .filter(|(_, value)| !value.is_empty())
            .ok_or_else(|| self.no_pair(part))?;
        match key {
            "socket" => self.set_address(Address::Socket(value.into())),
            "listen" => self.set_address(Address::Listen(value.into())),
            "exec" => {
                self.command = Some(CommandLine::parse(value)?);
                self.set_address(Address::Command(value.into()))
            }
            "id" => {
                self.options.id = value.into();
                Ok(())
            }
            "queues" => {
                self.options.queues = Some(number(key, value)?);
                Ok(())
            }
            "queue-size" => {
                self.options.queue_size = Some(number(key, value)?);
                Ok(())
            }
            "deadline" => {
                self.deadline = Some(deadline(value)?);
                Ok(())
            }
            "reconnect" => {
                self.options.reconnect = reconnect(value)?;
                Ok(())
            }
            _ => {
                let known = "socket, listen, exec, id, queues, queue-size, deadline, reconnect \
                             and features";
                Err(format!("{key:?} is not known; the keys are {known}"))
            }
        }
    }

    fn set_address(&mut self, address: Address) -> Result<(), String> {
        match self.address.replace(address) {
            None => Ok(()),
            Some(_) => Err("it has two backends; give one of socket=, listen= and exec=".into()),
        }
    }

    /// Leaves out the feature of `-NAME`: of the device, or of the protocol.
    fn mask(&mut self, text: &str) -> Result<(), String> {
        let name = text
            .strip_prefix('-')
            .ok_or_else(|| format!("features takes -NAME, to go without it, not {text:?}"))?;
        let device_type = self.options.device_type;
        if let Some(bit) = features::parse(device_type, name) {
            self.options.masked_features |= 1 << bit;
        } else if let Some(feature) = vhost_user::parse_protocol(name) {
            self.options.masked_protocol |= feature;
        } else {
            return Err(format!(
                "{name:?} is not a feature of {device_type} devices, nor one of vhost-user's \
                 that is used here"
            ));
        }
        Ok(())
    }

    fn no_pair(&self, part: &str) -> String {
        let hint = if self.command.is_some() {
            "; a command with commas goes between double quotes: exec=\"COMMAND\""
        } else {
            ""
        };
        format!("{part:?} is not of the form key=value{hint}")
    }
}

/// At the commas that are not between double quotes; without the quotes.
fn split(spec: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    for c in spec.chars() {
        match (c, parts.last_mut()) {
            ('"', _) => is_quoted = !is_quoted,
            (',', _) if !is_quoted => parts.push(String::new()),
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    if is_quoted {
        return Err("a double quote has no second one".into());
    }
    Ok(parts)
}

fn number(key: &str, value: &str) -> Result<u16, String> {
    value
        .parse()
        .map_err(|_| format!("{key} takes a number up to 65535, not {value:?}"))
}

fn deadline(value: &str) -> Result<Duration, String> {
    let seconds: Option<u16> = value.parse().ok().filter(|seconds| *seconds > 0);
    let seconds = seconds.ok_or_else(|| {
        format!("deadline takes a number of seconds from 1 to 65535, not {value:?}")
    })?;
    Ok(Duration::from_secs(seconds.into()))
}

fn reconnect(value: &str) -> Result<Reconnect, String> {
    if value == "off" {
        return Ok(Reconnect::Off);
    }
    let seconds: u16 = value
        .parse()
        .map_err(|_| format!("reconnect takes off or seconds up to 65535, not {value:?}"))?;
    Ok(Reconnect::For(Duration::from_secs(seconds.into())))
}
