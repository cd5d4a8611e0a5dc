//! Traces come back as they were, as far as they were written.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Kind, read_json, read_pcapng};
use crate::trace::record::{Descriptor, Event, Fragment, Message, Record, Side, Start};

/// What a writer has written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message(from: Side, request: u32, flags: u32, latency: Option<u64>) -> Event {
    Event::Message(Message {
        channel: Side::Frontend,
        from,
        request,
        flags,
        size: 8,
        payload: vec![0xff; 8],
        files: vec![Descriptor {
            number: 3,
            kind: "memfd:outboard-ram".into(),
        }],
        latency,
    })
}

fn records() -> Vec<Record> {
    let fragment = Event::Fragment(Fragment {
        channel: Side::Backend,
        from: Side::Backend,
        bytes: vec![1, 2, 3],
        files: Vec::new(),
    });
    let events = [
        Event::Connected,
        message(Side::Frontend, 1, 1, None),
        message(Side::Frontend, 2, 1, None),
        message(Side::Backend, 1, 5, Some(1500)),
        // Never answered.
        message(Side::Frontend, 40, 1, None),
        fragment,
        Event::Lost { records: 4 },
        Event::Fault {
            at: "kick, queue 0".into(),
            what: "drop".into(),
        },
        Event::Closed { by: Side::Backend },
    ];
    let record = |(number, event)| Record {
        number: number as u64,
        time: 1_000 * number as u64,
        device: if number < 4 { "disk" } else { "net" }.to_owned(),
        device_type: (number != 5).then_some(2),
        connection: 1,
        event,
    };
    events.into_iter().enumerate().map(record).collect()
}

fn write(kind: Kind) -> Vec<u8> {
    let written = Written::default();
    let start = Start::at(Duration::new(1_700_000_000, 5));
    let mut writer = kind.begin(Box::new(written.clone()), start).unwrap();
    records()
        .iter()
        .for_each(|record| writer.record(record).unwrap());
    writer.finish().unwrap();
    std::mem::take(&mut written.0.lock().unwrap())
}

#[test]
fn json_comes_back_also_without_its_end() {
    let bytes = write(Kind::Json);
    let (start, read) = read_json(&bytes[..]).unwrap();
    assert_eq!(start.since_epoch(), Duration::new(1_700_000_000, 5));
    assert_eq!(read, records());
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for len in first + 1..bytes.len() {
        let (_, read) = read_json(&bytes[..len]).unwrap();
        assert!(records().starts_with(&read), "{len}");
    }
    assert!(read_json(&b"a text\n"[..]).is_err());
}

#[test]
fn pcapng_comes_back_also_without_its_end() {
    let bytes = write(Kind::Pcapng);
    let (start, read) = read_pcapng(&bytes[..]).unwrap();
    assert_eq!(start.since_epoch(), Duration::new(1_700_000_000, 5));
    assert_eq!(read, records());
    // Behind the head of the file, which is written at once.
    for len in 52..bytes.len() {
        let (_, read) = read_pcapng(&bytes[..len]).unwrap();
        assert!(records().starts_with(&read), "{len}");
    }
    assert!(read_pcapng(&b"a text, and no blocks"[..]).is_err());
}

#[test]
fn a_timeline_has_spans_for_replies_and_instants_for_the_rest() {
    let bytes = write(Kind::Chrome);
    let events: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
    let of = |phase: &str| {
        let is_it = |event: &&serde_json::Value| event["ph"] == phase;
        events.iter().filter(is_it).collect::<Vec<_>>()
    };
    let spans = of("X");
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0]["name"], "GET_FEATURES");
    assert_eq!(
        (&spans[0]["ts"], &spans[0]["dur"]),
        (&1.0.into(), &2.0.into())
    );
    let names: Vec<_> = of("i")
        .iter()
        .map(|event| event["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "connected",
            "SET_FEATURES",
            "no whole message",
            "records are missing",
            "fault",
            "GET_STATUS",
            "closed"
        ]
    );
}
