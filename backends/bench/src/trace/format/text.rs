//! A line for people.

use std::io::{self, Write};
use std::time::Duration;

use diagnosis::duration;

use super::writer::Writer;
use crate::trace::decode;
use crate::trace::escape::to_hex;
use crate::trace::record::{
    Available, Buffer, Descriptor, Event, Fragment, Message, Record, Side, Used,
};

pub struct Text {
    out: Box<dyn Write + Send>,
}

impl Text {
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        let out = Box::new(io::BufWriter::new(out));
        Self { out }
    }
}

impl Writer for Text {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        writeln!(self.out, "{}", line(record))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

/// `SECONDS DEVICE CONNECTION EVENT`.
pub fn line(record: &Record) -> String {
    let seconds = Duration::from_nanos(record.time).as_secs_f64();
    let (device, connection) = (&record.device, record.connection);
    let event = match &record.event {
        Event::Connected => "connected".to_owned(),
        Event::Message(message) => self::message(message, record),
        Event::Fragment(fragment) => self::fragment(fragment),
        Event::Kick { queue } => format!("-> kick, queue {queue}"),
        Event::Call { queue } => format!("<- call, queue {queue}"),
        Event::Available(chain) => {
            let Available {
                queue, head, what, ..
            } = chain;
            format!(
                "-> queue {queue} chain {head}: {what}{}",
                buffers(&chain.buffers)
            )
        }
        Event::Used(used) => self::used(used),
        Event::Closed { by } => format!("closed by the {}", by.name()),
        Event::Fault { at, what } => format!("!! fault: {what} ({at})"),
        Event::End => "open at the end of the trace".to_owned(),
        Event::Lost { records } => {
            format!("{records} records are missing here: the trace could not be written as fast")
        }
    };
    format!("{seconds:>12.6} {device}#{connection} {event}")
}

fn message(message: &Message, record: &Record) -> String {
    let mut text = format!("{} {}", arrow(message.from), decode::message_name(message));
    let header = message.header();
    if header.is_reply() {
        text += " reply";
    }
    if let Some(latency) = message.latency {
        text += &format!(" after {}", duration(latency));
    }
    let fields = decode::fields(message, record.device_type());
    if !fields.is_empty() {
        text += &format!(" {fields}");
    }
    text += &files(&message.files);
    if header.needs_reply() {
        text += " NEED_REPLY";
    }
    let known = vhost_user_wire::REPLY | vhost_user_wire::NEED_REPLY | vhost_user_wire::VERSION;
    if header.version() != vhost_user_wire::VERSION || header.flags & !known != 0 {
        text += &format!(" (flags {:#x})", header.flags);
    }
    if let Some(shortage) = decode::shortage(message) {
        text += &format!(" (malformed: {shortage})");
    }
    text
}

fn fragment(fragment: &Fragment) -> String {
    let bytes = &fragment.bytes;
    let shown = &bytes[..bytes.len().min(32)];
    let dots = if shown.len() < bytes.len() { "…" } else { "" };
    let (arrow, hex, len) = (arrow(fragment.from), to_hex(shown), bytes.len());
    format!(
        "{arrow} {len} bytes, no whole message: {hex}{dots}{}",
        files(&fragment.files)
    )
}

/// `readable + writable` lengths.
fn buffers(buffers: &[Buffer]) -> String {
    let lengths = |is_writable| {
        let these = buffers
            .iter()
            .filter(|buffer| buffer.is_writable == is_writable);
        let lengths: Vec<_> = these.map(|buffer| buffer.len.to_string()).collect();
        lengths.join(" ")
    };
    format!(" [{} | {}]", lengths(false), lengths(true))
}

fn used(used: &Used) -> String {
    let Used {
        queue,
        head,
        written,
        ..
    } = used;
    let mut text = format!("<- queue {queue} chain {head} used");
    if let Some(latency) = used.latency {
        text += &format!(" after {}", duration(latency));
    }
    if let Some(what) = &used.what {
        text += &format!(": {what}");
    }
    if let Some(result) = &used.result {
        text += &format!(": {result}");
    }
    text + &format!(", {written} bytes written")
}

fn arrow(from: Side) -> &'static str {
    match from {
        Side::Frontend => "->",
        Side::Backend => "<-",
    }
}

fn files(files: &[Descriptor]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let name = |file: &Descriptor| format!("{} {}", file.number, file.kind);
    let names: Vec<_> = files.iter().map(name).collect();
    format!(" [{}]", names.join(", "))
}

#[cfg(test)]
#[path = "text_test.rs"]
mod tests;
