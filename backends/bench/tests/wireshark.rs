//! The dissector for Wireshark agrees with this crate about what stands in a message.
//!
//! `golden/` has traces of six backends, and what tshark says of each. After a change that is
//! meant to be seen there:
//!
//! ```text
//! tshark -X lua_script:wireshark/vhost_user.lua -r tests/golden/NAME.pcapng \
//!     -T fields -e _ws.col.Info > tests/golden/NAME.txt
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use vhost_user_wire::DeviceType;
use workbench::trace::Record;
use workbench::trace::decode::{self, Value};
use workbench::trace::format::{Kind, read_pcapng};
use workbench::trace::record::{Event, Message, Side, Start};

const GOLDEN: [&str; 6] = [
    "board",
    "outboard-blk",
    "outboard-rng",
    "qemu-storage-daemon",
    "vhost-device-rng",
    "virtiofsd",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The columns of each packet.
fn tshark(file: &Path, columns: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    let script = path("wireshark/vhost_user.lua");
    command
        .arg("-X")
        .arg(format!("lua_script:{}", script.display()));
    command.arg("-r").arg(file).args(["-T", "fields"]);
    for column in columns {
        command.args(["-e", column]);
    }
    let output = command.output();
    let output = output.expect("tshark is not installed; run `make setup` first");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    // What a script does wrong is said there, and does not end it.
    assert!(!errors.contains("Lua"), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Lua Error"), "{text}");
    let columns = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().map(columns).collect()
}

/// What tshark should say of a record, in the columns of [`COLUMNS`].
fn expected(record: &Record) -> Vec<String> {
    let Event::Message(message) = &record.event else {
        return vec![String::new(); COLUMNS.len()];
    };
    let fields = decode::fields(message, record.device_type());
    let bits = fields.0.iter().flat_map(|(_, value)| match value {
        Value::Bits(_, names) => names.clone(),
        _ => Vec::new(),
    });
    let numbers = message.files.iter().map(|file| file.number.to_string());
    vec![
        decode::message_name(message),
        u8::from(message.is_reply()).to_string(),
        bits.collect::<Vec<_>>().join(","),
        numbers.collect::<Vec<_>>().join(","),
        message.latency.map_or(String::new(), |_| "latency".into()),
        decode::shortage(message).map_or(String::new(), |_| "malformed".into()),
    ]
}

const COLUMNS: [&str; 6] = [
    "vhost_user.name",
    "vhost_user.flags.reply",
    "vhost_user.bit",
    "vhost_user.file",
    "vhost_user.latency",
    "vhost_user.malformed",
];

fn agree(file: &Path, records: &[Record]) {
    let found = tshark(file, &COLUMNS);
    assert_eq!(found.len(), records.len());
    for (mut found, record) in found.into_iter().zip(records) {
        for (place, word) in [(4, "latency"), (5, "malformed")] {
            if !found[place].is_empty() {
                found[place] = word.into();
            }
        }
        assert_eq!(found, expected(record), "{record:?}");
    }
}

#[test]
fn traces_of_six_backends_are_shown_as_they_were() {
    for name in GOLDEN {
        let file = path(&format!("tests/golden/{name}.pcapng"));
        let (_, records) = read_pcapng(File::open(&file).unwrap()).unwrap();
        agree(&file, &records);
        let lines = tshark(&file, &["_ws.col.Info"]);
        let lines: Vec<_> = lines.iter().map(|columns| columns.join("\t")).collect();
        let golden = path(&format!("tests/golden/{name}.txt"));
        let golden = std::fs::read_to_string(golden).unwrap();
        assert_eq!(lines, golden.lines().collect::<Vec<_>>(), "{name}");
    }
}

/// Each request and reply that there could be, with all bits set and with too few bytes.
fn everything() -> Vec<Record> {
    let mut records = Vec::new();
    for device_type in [1, 2, 3, 4, 8, 19, 26] {
        for channel in [Side::Frontend, Side::Backend] {
            for request in 0..48 {
                for (flags, len) in [(1, 40), (5, 40), (1, 3), (5, 3), (1, 0)] {
                    let from = if flags == 1 { channel } else { channel.other() };
                    let event = Event::Message(Message {
                        channel,
                        from,
                        request,
                        flags,
                        size: len as u32,
                        payload: vec![0xff; len],
                        files: Vec::new(),
                        latency: (flags == 5).then_some(1),
                    });
                    records.push(Record {
                        number: records.len() as u64,
                        time: records.len() as u64,
                        device: DeviceType::new(device_type).unwrap().to_string(),
                        device_type: Some(device_type),
                        connection: 1,
                        event,
                    });
                }
            }
        }
    }
    records
}

#[test]
fn both_have_the_same_names_for_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("everything.pcapng");
    let out = Box::new(File::create(&file).unwrap());
    let mut writer = Kind::Pcapng.begin(out, Start::now()).unwrap();
    let records = everything();
    records
        .iter()
        .for_each(|record| writer.record(record).unwrap());
    writer.finish().unwrap();
    agree(&file, &records);
}
