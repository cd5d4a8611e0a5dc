use super::super::item::{Element, Start, Submit, Used};
use super::*;

fn items() -> Vec<Item> {
    let start = Start {
        queue: 0,
        size: 64,
        base: 7,
    };
    let submit = Submit {
        time: 5,
        number: 1,
        queue: 0,
        id: 3,
        elements: vec![
            Element {
                len: 4,
                is_writable: false,
            },
            Element {
                len: 9,
                is_writable: true,
            },
        ],
        table_after: Some(1),
        readable: vec![1, 2, 3, 4],
        trouble: None,
    };
    let used = Used {
        time: 9,
        number: 1,
        len: 2,
        written: vec![8, 9],
        last: Some(0),
    };
    vec![
        Item::Connected,
        Item::Features(1 << 32),
        Item::Start(start),
        Item::Submit(submit),
        Item::Used(used),
        Item::Closed { by_backend: false },
    ]
}

fn written() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let header = Header {
        device: "disk".into(),
        device_type: Some(2),
        began: 0,
    };
    let mut writer = Writer::create(&path, &header).unwrap();
    for item in items() {
        writer.write(&item).unwrap();
    }
    writer.flush().unwrap();
    std::fs::read(&path).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Item>, bool), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(item);
    }
    Ok((items, reader.is_cut_short()))
}

#[test]
fn what_is_written_is_read() {
    let bytes = written();
    assert_eq!(read(&bytes).unwrap(), (items(), false));
    let reader = Reader::new(&bytes[..]).unwrap();
    assert_eq!(reader.header().device, "disk");
}

#[test]
fn of_a_file_that_is_cut_short_the_whole_records_are_read() {
    let bytes = written();
    let mut seen = Vec::new();
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Ok((found, is_cut_short)) => {
                assert_eq!(found, items()[..found.len()]);
                seen.push((found.len(), is_cut_short));
            }
            Err(error) => assert!(matches!(error, ReadError::Foreign), "{error}"),
        }
    }
    seen.dedup();
    let whole = |count: &usize| seen.contains(&(*count, false)) && seen.contains(&(*count, true));
    assert!((0..items().len()).all(|count| whole(&count)), "{seen:?}");
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    let bytes = written();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        match read(&bytes) {
            Err(_) => {}
            // A length that is too large for what follows.
            Ok((found, is_cut_short)) => assert!(is_cut_short, "byte {at}: {found:?}"),
        }
    }
}

#[test]
fn a_record_that_claims_to_be_huge_is_damage() {
    let mut bytes = written();
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([0; 4]);
    let error = read(&bytes).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("record 7"), "{text}");
    assert!(text.ends_with("is longer than any record"), "{text}");
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = written();
    bytes[MAGIC.len()] = 9;
    let text = read(&bytes).unwrap_err().to_string();
    assert!(text.contains("version 9"), "{text}");
}
