//! A JSON object a line: the begin of the trace, then records. What is decoded stands beside
//! what was on the wire, so that `jq` has names and a reader loses nothing.

use std::io::{self, BufRead, Write};

use serde::Serialize;

use super::writer::Writer;
use crate::trace::decode::{self, Fields};
use crate::trace::record::{Event, Record, Start};

pub struct Json {
    out: Box<dyn Write + Send>,
}

impl Json {
    pub fn begin(out: Box<dyn Write + Send>, start: Start) -> io::Result<Self> {
        let mut json = Self {
            out: Box::new(io::BufWriter::new(out)),
        };
        json.write(&start)?;
        Ok(json)
    }

    fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(flatten)]
    decoded: Option<Decoded>,
}

#[derive(Serialize)]
struct Decoded {
    name: String,
    reply: bool,
    fields: Fields,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<String>,
}

impl Writer for Json {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        let decoded = match &record.event {
            Event::Message(message) => Some(Decoded {
                name: decode::message_name(message),
                reply: message.is_reply(),
                fields: decode::fields(message, record.device_type()),
                malformed: decode::shortage(message),
            }),
            _ => None,
        };
        self.write(&Line { record, decoded })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads what [`Json`] wrote. A last line without an end is that of a process that was killed.
pub fn read(mut file: impl BufRead) -> io::Result<(Start, Vec<Record>)> {
    let mut line = String::new();
    file.read_line(&mut line)?;
    let start = serde_json::from_str(&line)?;
    let mut records = Vec::new();
    loop {
        line.clear();
        if file.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok((start, records));
        }
        records.push(serde_json::from_str(&line)?);
    }
}
