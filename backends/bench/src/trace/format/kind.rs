//! Which forms there are.

use std::io::{self, Write};
use std::path::Path;

use super::chrome::Chrome;
use super::json::Json;
use super::pcapng::Pcapng;
use super::text::Text;
use super::writer::Writer;
use crate::trace::record::Start;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
    /// For Wireshark, with the dissector backends/bench/wireshark/vhost_user.lua.
    Pcapng,
    /// For Perfetto (ui.perfetto.dev) and chrome://tracing.
    Chrome,
}

impl Kind {
    /// By the ending of a file's name: `.jsonl`, `.pcapng`, `.trace.json`; text otherwise.
    pub fn of_name(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match name.rsplit_once('.') {
            Some((_, "jsonl" | "ndjson")) => Self::Json,
            Some((_, "pcapng")) => Self::Pcapng,
            Some((_, "json")) => Self::Chrome,
            _ => Self::Text,
        }
    }

    /// Begins a trace in this form.
    pub fn begin(self, out: Box<dyn Write + Send>, start: Start) -> io::Result<Box<dyn Writer>> {
        Ok(match self {
            Self::Text => Box::new(Text::new(out)),
            Self::Json => Box::new(Json::begin(out, start)?),
            Self::Pcapng => Box::new(Pcapng::begin(out, start)?),
            Self::Chrome => Box::new(Chrome::begin(out)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_the_form() {
        for (name, kind) in [
            ("disk.jsonl", Kind::Json),
            ("/tmp/x.pcapng", Kind::Pcapng),
            ("boot.trace.json", Kind::Chrome),
            ("trace.json", Kind::Chrome),
            ("trace", Kind::Text),
            ("trace.txt", Kind::Text),
        ] {
            assert_eq!(Kind::of_name(Path::new(name)), kind, "{name}");
        }
    }
}
