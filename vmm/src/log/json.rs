//! A log line as a JSON object, for machines.
//!
//! Not by the `json` feature of `tracing-subscriber`: it leaves out the causes of an error.

use std::fmt;

use host_io::errors::chain;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes `timestamp`, `level`, `target`, `message` and `fields`.
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let line = line(meta.level().as_str(), meta.target(), fields.0);
        writeln!(writer, "{line}")
    }
}

/// The line that stands where `lost` messages are missing.
pub fn lost(lost: u64) -> String {
    let mut fields = Map::new();
    let text = format!("{lost} messages were lost here: nobody read them");
    fields.insert(MESSAGE.into(), text.into());
    fields.insert("lost".into(), lost.into());
    format!("{}\n", line("WARN", "outboard", fields))
}

const MESSAGE: &str = "message";

fn line(level: &str, target: &str, mut fields: Map<String, Value>) -> Value {
    let mut time = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let message = fields.remove(MESSAGE).unwrap_or_default();
    serde_json::json!({
        "timestamp": time,
        "level": level,
        "target": target,
        "message": message,
        "fields": fields,
    })
}

/// An event's fields, the message among them.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_event_is_one_object_on_one_line() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let cause = io::Error::other("a cause\nof two lines");
            let error: &dyn std::error::Error = &cause;
            let id = "the \"disk\"";
            tracing::warn!(target: "devices", error, device = id, queue = 3, ready = true, "it is {}", "lost");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "devices");
        assert_eq!(line["message"], "it is lost");
        let fields = &line["fields"];
        assert_eq!(fields["device"], "the \"disk\"");
        assert_eq!(
            (&fields["queue"], &fields["ready"]),
            (&3.into(), &true.into())
        );
        assert_eq!(fields["error"], "a cause\nof two lines");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }

    #[test]
    fn lost_messages_are_told_of_in_the_same_form() {
        let line: Value = serde_json::from_str(&lost(3)).unwrap();
        assert_eq!(line["fields"]["lost"], 3);
        assert!(line["message"].as_str().unwrap().starts_with("3 messages"));
    }
}
