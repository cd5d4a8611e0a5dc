//! What follows when a guest's kernel panics, or the guest crashes:
//! `stop|reset|exit[[,format=kdump],dump=FILE]`.

use std::path::PathBuf;
use std::str::FromStr;

use gdb::inspect::DumpFormat;

/// The checked option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnPanic {
    pub action: PanicAction,
    /// Where RAM and registers go first.
    pub dump: Option<PanicDump>,
}

/// A crash dump without anybody's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicDump {
    pub path: PathBuf,
    pub format: DumpFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicAction {
    /// The guest stays stopped until somebody resumes or resets it.
    Stop,
    /// Power-on again.
    Reset,
    /// The machine ends.
    Exit,
}

/// The option is something else.
#[derive(Debug, thiserror::Error)]
#[error(
    "--on-panic {0:?} is not stop, reset or exit, with ,dump=FILE behind it for a crash dump, or \
     ,format=kdump,dump=FILE for a compressed one"
)]
pub struct ParseError(String);

impl FromStr for OnPanic {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError(text.to_owned());
        let (action, rest) = match text.split_once(',') {
            Some((action, rest)) => (action, Some(rest)),
            None => (text, None),
        };
        let action = match action {
            "stop" => PanicAction::Stop,
            "reset" => PanicAction::Reset,
            "exit" => PanicAction::Exit,
            _ => return Err(wrong()),
        };
        let dump = |rest| parse_dump(rest).ok_or_else(wrong);
        let dump = rest.map(dump).transpose()?;
        Ok(Self { action, dump })
    }
}

/// The file is the last part, for its name may have commas.
fn parse_dump(text: &str) -> Option<PanicDump> {
    let (format, file) = match text.strip_prefix("format=kdump,") {
        Some(file) => (DumpFormat::Kdump, file),
        None => (DumpFormat::Elf, text),
    };
    let file = file.strip_prefix("dump=").filter(|file| !file.is_empty())?;
    let path = PathBuf::from(file);
    Some(PanicDump { path, format })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_may_have_a_dump() {
        let parse = |text: &str| text.parse::<OnPanic>().ok();
        let option = |action, dump: Option<&str>| {
            let dump = dump.map(|path| PanicDump {
                path: path.into(),
                format: DumpFormat::Elf,
            });
            Some(OnPanic { action, dump })
        };
        assert_eq!(parse("stop"), option(PanicAction::Stop, None));
        let dump = option(PanicAction::Exit, Some("a,b"));
        assert_eq!(parse("exit,dump=a,b"), dump);
        let compressed = parse("stop,format=kdump,dump=a,b").unwrap();
        let dump = compressed.dump.unwrap();
        assert_eq!((dump.path, dump.format), ("a,b".into(), DumpFormat::Kdump));
        for text in [
            "",
            "halt",
            "stop,",
            "stop,dump=",
            "dump=x",
            "reset,x=y",
            "stop,format=kdump",
            "stop,format=elf,dump=x",
        ] {
            let error = text.parse::<OnPanic>().unwrap_err().to_string();
            assert!(error.contains("stop, reset or exit"), "{error}");
        }
    }
}
