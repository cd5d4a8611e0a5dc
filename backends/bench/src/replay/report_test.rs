use std::time::Duration;

use vhost_user_wire::DeviceType;

use super::*;

fn answer(bytes: &[u8]) -> Answer {
    Answer {
        len: Some(bytes.len() as u32),
        bytes: bytes.to_vec(),
        last: bytes.last().copied(),
        overtaken_by: None,
    }
}

fn outcome(difference: Difference, recorded: Option<Answer>) -> Outcome {
    let mut wrong = [0; 33];
    wrong[20] = b'x';
    Outcome {
        requests: 9,
        equal: 7,
        different: 1,
        external: 1,
        elapsed: Duration::from_millis(20),
        first: Some(First {
            number: 8,
            queue: 0,
            what: "IN sector 3, 32 bytes".into(),
            device_type: Some(DeviceType::BLK),
            difference,
            expected: answer(&[0; 33]),
            found: Some(answer(&wrong)),
            recorded,
            before: vec!["request 7, queue 0: FLUSH".into()],
            output: Vec::new(),
        }),
        ..Outcome::default()
    }
}

#[test]
fn different_content_is_dumped() {
    let text = text(&outcome(Difference::Content { at: 20 }, None), false);
    let zeros = ["00"; 16].join(" ");
    let wrong = zeros.replacen("00 00 00 00 00", "00 00 00 00 78", 1);
    let dots = ".".repeat(16);
    let expected = format!(
        "request 8, queue 0: IN sector 3, 32 bytes\n\
         \x20 the answers are different from byte 20 (0x14) on\n\
         \x20 the recording:\n\
         \x20   00000010  {zeros}  |{dots}|\n\
         \x20   00000020  {:<47}  |.|\n\
         \x20 the backend:\n\
         \x20   00000010  {wrong}  |....x...........|\n\
         \x20   00000020  {:<47}  |.|\n\
         \x20 before it:\n\
         \x20   request 7, queue 0: FLUSH\n\
         \n\
         DIFFERENT: 9 requests in 0.02 s; 7 answered the same, 1 not, 1 are buffers for what \
         comes from elsewhere\n",
        "00", "00"
    );
    assert_eq!(text, expected);
}

#[test]
fn a_status_has_a_name_and_the_recording_is_the_third() {
    let status = Difference::Status {
        expected: 0,
        found: 1,
    };
    let text = text(&outcome(status, Some(answer(&[0; 33]))), true);
    let words = "  the backend says IOERR, and the other backend OK\n  the recording has OK, 33 bytes written\n";
    assert!(text.contains(words), "{text}");
}

#[test]
fn json_has_the_same() {
    let json = json(&outcome(Difference::Content { at: 20 }, None));
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["equal"], false);
    let first = &value["first_difference"];
    assert_eq!(
        (&first["request"], &first["offset"]),
        (&8.into(), &20.into())
    );
    let found = first["found"]["bytes"].as_str().unwrap();
    assert!(found.starts_with("0000000078"), "{found}");
}
