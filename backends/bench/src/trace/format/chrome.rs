//! Chrome's trace format, which Perfetto reads: a process for each device, a track for each
//! direction of each connection. A request that is answered is a span, anything else an instant.

use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::writer::Writer;
use crate::trace::decode;
use crate::trace::pending::expects_reply;
use crate::trace::record::{Event, Message, Record, Side, Used};

/// Requests of a channel that wait for replies. Earlier ones count as unanswered.
const MOST: usize = 256;

pub struct Chrome {
    out: Box<dyn Write + Send>,
    is_first: bool,
    /// Process numbers by device.
    devices: HashMap<String, usize>,
    tracks: HashMap<(usize, String), usize>,
    /// Requests by connection and channel that wait for their replies.
    asked: HashMap<(u32, Side), Vec<Record>>,
}

impl Chrome {
    pub fn begin(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let mut out = Box::new(io::BufWriter::new(out));
        out.write_all(b"[")?;
        Ok(Self {
            out,
            is_first: true,
            devices: HashMap::new(),
            tracks: HashMap::new(),
            asked: HashMap::new(),
        })
    }

    fn write(&mut self, event: &Value) -> io::Result<()> {
        let comma = if std::mem::take(&mut self.is_first) {
            "\n"
        } else {
            ",\n"
        };
        write!(self.out, "{comma}{event}")
    }

    /// The process and the thread that stand for a device and one of its tracks.
    fn track(&mut self, device: &str, name: String) -> io::Result<(usize, usize)> {
        let next = self.devices.len() + 1;
        let process = *self.devices.entry(device.to_owned()).or_insert(next);
        if process == next {
            self.name("process_name", process, 0, device)?;
        }
        let next = self.tracks.len() + 1;
        let thread = *self.tracks.entry((process, name.clone())).or_insert(next);
        if thread == next {
            self.name("thread_name", process, thread, &name)?;
        }
        Ok((process, thread))
    }

    fn name(&mut self, what: &str, process: usize, thread: usize, name: &str) -> io::Result<()> {
        let args = json!({ "name": name });
        self.write(&json!({
            "ph": "M", "name": what, "pid": process, "tid": thread, "args": args
        }))
    }

    fn instant(
        &mut self,
        record: &Record,
        name: &str,
        track: String,
        args: Value,
    ) -> io::Result<()> {
        let (process, thread) = self.track(&record.device, track)?;
        self.write(&json!({
            "ph": "i", "s": "t", "name": name, "ts": micros(record.time),
            "pid": process, "tid": thread, "args": args
        }))
    }

    fn message(&mut self, record: &Record, message: &Message) -> io::Result<()> {
        let place = (record.connection, message.channel);
        if message.is_reply() {
            let asked = self.asked.entry(place).or_default();
            let is_it = |asked: &Record| match &asked.event {
                Event::Message(asked) => asked.request == message.request,
                _ => false,
            };
            if let Some(found) = asked.iter().position(is_it) {
                let mut earlier: Vec<_> = asked.drain(..=found).collect();
                let request = earlier.pop();
                self.unanswered(earlier)?;
                if let Some(request) = request {
                    return self.span(&request, record, message);
                }
            }
        } else if expects_reply(message.channel, &message.header()) {
            let asked = self.asked.entry(place).or_default();
            asked.push(record.clone());
            let excess = asked.len().saturating_sub(MOST);
            let excess = asked.drain(..excess).collect();
            return self.unanswered(excess);
        }
        self.lone(record, message)
    }

    /// A message that is not answered.
    fn lone(&mut self, record: &Record, message: &Message) -> io::Result<()> {
        let name = decode::message_name(message);
        self.instant(record, &name, track(record, message), args(record, message))
    }

    fn unanswered(&mut self, records: Vec<Record>) -> io::Result<()> {
        for record in records {
            if let Event::Message(message) = &record.event {
                self.lone(&record, message)?;
            }
        }
        Ok(())
    }

    fn span(&mut self, asked: &Record, record: &Record, reply: &Message) -> io::Result<()> {
        let Event::Message(request) = &asked.event else {
            return Ok(());
        };
        let (process, thread) = self.track(&record.device, track(asked, request))?;
        let args = json!({ "request": args(asked, request), "reply": args(record, reply) });
        self.write(&json!({
            "ph": "X", "name": decode::message_name(request), "ts": micros(asked.time),
            "dur": micros(record.time.saturating_sub(asked.time)),
            "pid": process, "tid": thread, "args": args
        }))
    }

    /// A chain from when it was seen to when it was used. Chains overlap, which spans of a track
    /// cannot: they are asynchronous.
    fn used(&mut self, record: &Record, used: &Used) -> io::Result<()> {
        let (process, thread) = self.track(&record.device, ring(record, used.queue))?;
        let latency = used.latency.unwrap_or(0);
        let name = used.what.as_deref().unwrap_or("a chain");
        let args = json!({ "head": used.head, "written": used.written, "result": used.result });
        for (phase, time) in [
            ("b", record.time.saturating_sub(latency)),
            ("e", record.time),
        ] {
            self.write(&json!({
                "ph": phase, "cat": "chain", "id": record.number, "name": name,
                "ts": micros(time), "pid": process, "tid": thread, "args": args
            }))?;
        }
        Ok(())
    }

    fn forget(&mut self, connection: u32) -> io::Result<()> {
        for channel in [Side::Frontend, Side::Backend] {
            let asked = self.asked.remove(&(connection, channel));
            self.unanswered(asked.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Writer for Chrome {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        let connection = format!("connection {}", record.connection);
        match &record.event {
            Event::Message(message) => self.message(record, message),
            Event::Connected => self.instant(record, "connected", connection, json!({})),
            Event::Closed { by } => {
                self.forget(record.connection)?;
                let args = json!({ "by": by.name() });
                self.instant(record, "closed", connection, args)
            }
            Event::Fragment(fragment) => {
                let args = json!({ "from": fragment.from.name(), "bytes": fragment.bytes.len() });
                self.instant(record, "no whole message", connection, args)
            }
            Event::Kick { queue } => self.instant(record, "kick", ring(record, *queue), json!({})),
            Event::Call { queue } => self.instant(record, "call", ring(record, *queue), json!({})),
            // It is drawn when it ends.
            Event::Available(_) => Ok(()),
            Event::Used(used) => self.used(record, used),
            Event::Fault { at, what } => {
                let args = json!({ "at": at, "what": what });
                self.instant(record, "fault", connection, args)
            }
            Event::End => self.instant(record, "end of the trace", connection, json!({})),
            Event::Lost { records } => {
                let args = json!({ "records": records });
                self.instant(record, "records are missing", connection, args)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        let mut connections: Vec<_> = self
            .asked
            .keys()
            .map(|(connection, _)| *connection)
            .collect();
        connections.sort_unstable();
        for connection in connections {
            self.forget(connection)?;
        }
        self.out.write_all(b"\n]\n")?;
        self.out.flush()
    }
}

fn ring(record: &Record, queue: u8) -> String {
    format!("connection {}: queue {queue}", record.connection)
}

fn track(record: &Record, message: &Message) -> String {
    let whose = message.from.name();
    format!("connection {}: {whose}", record.connection)
}

fn args(record: &Record, message: &Message) -> Value {
    let mut args = Map::new();
    let fields = decode::fields(message, record.device_type());
    args.insert("fields".into(), json!(fields));
    if !message.files.is_empty() {
        args.insert("files".into(), json!(message.files));
    }
    args.into()
}

/// Chrome's unit of time.
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}
