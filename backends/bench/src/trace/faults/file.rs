//! The file of faults.

use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::rule::{Action, Pick, Place, Rule, When};
use crate::trace::decode::request_name;
use crate::trace::record::Side;

/// A delay up to this length is one, and no hang that somebody forgot.
const LONGEST: u64 = 600_000;

#[derive(Debug, PartialEq)]
pub struct FaultFile {
    pub seed: Option<u32>,
    pub rules: Vec<Rule>,
    /// Where each of the rules begins.
    lines: Vec<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct FileError {
    line: usize,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    seed: Option<u32>,
    #[serde(default)]
    fault: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    device: Option<String>,
    message: Option<String>,
    from: Option<Side>,
    kick: Option<u8>,
    call: Option<u8>,
    nth: Option<u64>,
    every: Option<u64>,
    probability: Option<f64>,
    after: Option<u64>,
    #[serde(rename = "do")]
    action: Word,
    milliseconds: Option<u64>,
    bytes: Option<usize>,
    byte: Option<usize>,
    region: Option<u64>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Word {
    Drop,
    Delay,
    Double,
    Truncate,
    Corrupt,
    Reorder,
    Cut,
    Fill,
    Shrink,
    Stop,
    Kill,
}

impl FaultFile {
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let error = |span: Range<usize>, why| FileError {
            line: line(text, span),
            why,
        };
        let document: Document = toml::from_str(text).map_err(|unread| {
            let span = unread.span().unwrap_or_default();
            error(span, unread.message().to_owned())
        })?;
        let rule =
            |entry: &Spanned<Entry>| rule(entry.get_ref()).map_err(|why| error(entry.span(), why));
        let faults = &document.fault;
        Ok(Self {
            seed: document.seed,
            rules: faults.iter().map(rule).collect::<Result<_, _>>()?,
            lines: faults
                .iter()
                .map(|entry| line(text, entry.span()))
                .collect(),
        })
    }

    /// An error if a rule is for a device that is none of these.
    pub fn check_devices(&self, devices: &[String]) -> Result<(), FileError> {
        for (rule, line) in self.rules.iter().zip(&self.lines) {
            if let Some(name) = rule.device.as_ref().filter(|name| !devices.contains(name)) {
                let known = match devices {
                    [] => "there are none".to_owned(),
                    _ => format!("there are {}", devices.join(", ")),
                };
                return Err(FileError {
                    line: *line,
                    why: format!("there is no device {name:?}; {known}"),
                });
            }
        }
        Ok(())
    }
}

/// The line on which it begins, from 1.
fn line(text: &str, span: Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn rule(entry: &Entry) -> Result<Rule, String> {
    let rule = Rule {
        device: entry.device.clone(),
        place: place(entry)?,
        when: when(entry)?,
        action: action(entry)?,
    };
    let is_message = matches!(rule.place, Place::Message { .. });
    if !is_message && !rule.action.is_for_signals() {
        let name = rule.action.name();
        return Err(format!("only a message can have `do = \"{name}\"`"));
    }
    Ok(rule)
}

fn place(entry: &Entry) -> Result<Place, String> {
    match (&entry.message, entry.kick, entry.call, entry.from) {
        (Some(name), None, None, from) => Ok(Place::Message {
            name: message_name(name)?,
            from,
        }),
        (None, Some(queue), None, None) => Ok(Place::Kick(queue)),
        (None, None, Some(queue), None) => Ok(Place::Call(queue)),
        (None, _, _, Some(_)) => Err("only `message` can have `from`".into()),
        _ => Err("a fault needs exactly one of `message`, `kick` and `call`".into()),
    }
}

/// `None` for any message.
fn message_name(name: &str) -> Result<Option<String>, String> {
    // Numbers of requests in the vhost-user document are below this.
    let mut codes = (0..64).flat_map(|code| {
        let of = |channel| request_name(channel, code);
        [of(Side::Frontend), of(Side::Backend)]
    });
    match name {
        "any" => Ok(None),
        _ if codes.any(|known| known == name) => Ok(Some(name.to_owned())),
        _ => Err(format!(
            "there is no message {name:?}: messages are called as in a trace (GET_CONFIG, \
             BACKEND_SHMEM_MAP), or \"any\""
        )),
    }
}

fn when(entry: &Entry) -> Result<When, String> {
    let after = entry.after.unwrap_or(0);
    let pick = match (entry.nth, entry.every, entry.probability) {
        (Some(0), ..) | (_, Some(0), _) => return Err("`nth` and `every` count from 1".into()),
        (Some(nth), None, None) => Pick::Nth(nth),
        (None, Some(every), None) => Pick::Every(every),
        (None, None, Some(p)) if (0.0..=1.0).contains(&p) => Pick::Probability(p),
        (None, None, Some(_)) => return Err("`probability` is from 0.0 to 1.0".into()),
        (None, None, None) if entry.after.is_some() => Pick::Every(1),
        _ => {
            return Err(
                "a fault needs exactly one of `nth`, `every` and `probability`, or `after` alone"
                    .into(),
            );
        }
    };
    Ok(When { after, pick })
}

fn action(entry: &Entry) -> Result<Action, String> {
    let word = entry.action;
    let has_bytes = [Word::Truncate, Word::Shrink];
    for (key, is_there, owners) in [
        (
            "milliseconds",
            entry.milliseconds.is_some(),
            &[Word::Delay][..],
        ),
        ("bytes", entry.bytes.is_some(), &has_bytes[..]),
        ("byte", entry.byte.is_some(), &[Word::Corrupt][..]),
        ("region", entry.region.is_some(), &[Word::Shrink][..]),
    ] {
        if is_there && !owners.contains(&word) {
            return Err(format!("`{key}` does not belong to this `do`"));
        }
    }
    Ok(match word {
        Word::Drop => Action::Drop,
        Word::Delay => match entry.milliseconds {
            Some(time) if time <= LONGEST => Action::Delay(Duration::from_millis(time)),
            Some(_) => return Err(format!("`milliseconds` is at most {LONGEST}")),
            None => return Err("`do = \"delay\"` needs `milliseconds`".into()),
        },
        Word::Double => Action::Double,
        Word::Shrink if entry.bytes == Some(0) => {
            return Err("memory without its last 0 bytes is as large as before".into());
        }
        Word::Truncate if entry.bytes == Some(0) => {
            return Err("nothing is sent of 0 bytes: that is `do = \"drop\"`".into());
        }
        Word::Truncate => Action::Truncate(entry.bytes),
        Word::Corrupt => Action::Corrupt(entry.byte),
        Word::Reorder => Action::Reorder,
        Word::Cut => Action::Cut,
        Word::Fill => Action::Fill,
        Word::Shrink => Action::Shrink {
            region: entry.region,
            bytes: entry.bytes.map(|bytes| bytes as u64),
        },
        Word::Stop => Action::Stop,
        Word::Kill => Action::Kill,
    })
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
