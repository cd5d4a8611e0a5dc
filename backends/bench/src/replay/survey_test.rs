use std::path::Path;

use vhost_user_wire::DeviceType;

use super::*;
use crate::recording::{Element, Header, Writer};

fn survey(items: &[Item], device_type: DeviceType) -> Result<Survey, SurveyError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    write(&path, items);
    Survey::of(
        &mut Reader::open(&path).unwrap(),
        Rules::new(Some(device_type), &[]),
    )
}

fn write(path: &Path, items: &[Item]) {
    let header = Header {
        device: "disk".into(),
        device_type: None,
        began: 0,
    };
    let mut writer = Writer::create(path, &header).unwrap();
    items.iter().for_each(|item| writer.write(item).unwrap());
    writer.flush().unwrap();
}

fn start(queue: u8, size: u16) -> Item {
    Item::Start(Start {
        queue,
        size,
        base: 0,
    })
}

fn submit(number: u64, queue: u8) -> Submit {
    let element = |len, is_writable| Element { len, is_writable };
    Submit {
        time: 0,
        number,
        queue,
        id: 0,
        elements: vec![element(16, false), element(4096, true)],
        table_after: None,
        readable: vec![0; 16],
        trouble: None,
    }
}

fn used(number: u64) -> Item {
    Item::Used(Used {
        time: 0,
        number,
        len: 1,
        written: vec![0],
        last: None,
    })
}

#[test]
fn buffers_are_counted_while_the_device_has_them() {
    let requests = |numbers: std::ops::Range<u64>| {
        numbers.flat_map(|number| [Item::Submit(submit(number, 0)), used(number)])
    };
    let mut items = vec![Item::Connected, start(0, 8)];
    items.extend(requests(1..50));
    let survey = survey(&items, DeviceType::BLK).unwrap();
    assert_eq!((survey.requests, survey.queues), (49, 1));
    assert_eq!(survey.buffers, Arena::cost(16) + Arena::cost(4096));
}

#[test]
fn buffers_that_wait_for_what_comes_from_elsewhere_stay() {
    let items = [
        Item::Connected,
        start(0, 8),
        Item::Submit(submit(1, 0)),
        used(1),
    ];
    let cost = Arena::cost(16) + Arena::cost(4096);
    let survey = survey(&items, DeviceType::NET).unwrap();
    assert_eq!(survey.buffers, cost + 8 * cost);
}

#[test]
fn nonsense_is_refused() {
    let long = Submit {
        elements: submit(1, 0).elements.repeat(5),
        readable: vec![0; 80],
        ..submit(1, 0)
    };
    let short = Submit {
        readable: vec![0; 15],
        ..submit(1, 0)
    };
    let empty = Submit {
        table_after: Some(2),
        ..submit(1, 0)
    };
    let run = |items: Vec<Item>| [vec![Item::Connected, start(0, 8)], items].concat();
    let cases = [
        (vec![Item::Submit(submit(1, 0))], "before any connection"),
        (
            vec![Item::Connected, start(0, 0)],
            "a size that there is not",
        ),
        (run(vec![start(0, 8)]), "a ring that runs"),
        (run(vec![Item::Submit(submit(1, 1))]), "does not run"),
        (run(vec![used(1)]), "a request that there is not"),
        (run(vec![Item::Submit(long)]), "longer than its ring"),
        (run(vec![Item::Submit(short)]), "not as long as its buffers"),
        (run(vec![Item::Submit(empty)]), "an empty table"),
        (
            run(vec![Item::Submit(submit(1, 0)), used(1), used(1)]),
            "a request that there is not",
        ),
        (
            run(vec![Item::Submit(submit(2, 0)), Item::Submit(submit(2, 0))]),
            "a number that another had",
        ),
    ];
    for (items, what) in cases {
        let error = survey(&items, DeviceType::BLK).unwrap_err().to_string();
        assert!(error.contains(what), "{error} is not {what}");
    }
}

#[test]
fn a_recording_that_asks_for_all_memory_is_refused() {
    let huge = Element {
        len: u32::MAX,
        is_writable: true,
    };
    let huge = Submit {
        elements: vec![huge],
        readable: Vec::new(),
        ..submit(1, 0)
    };
    let items = [Item::Connected, start(0, 8), Item::Submit(huge)];
    let error = survey(&items, DeviceType::BLK).unwrap_err();
    assert!(matches!(error, SurveyError::TooLarge(_)), "{error}");
}
