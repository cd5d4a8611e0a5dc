//! What a driver asks through `outboard record` is asked again by `outboard replay`; a backend
//! that answers otherwise is found out.

#[expect(dead_code, reason = "most breaks are for other tests")]
mod fake;
mod recorder;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use fake::Break;
use workbench::driver::{Buffers, Chain, Element, Frontend, Session, Setup, Table};
use workbench::recording::{Item, Reader, Submit, Used};

/// Records what `drive` does with a backend that has a break, and returns the file.
fn recorded(dir: &Path, what: Break, drive: impl FnOnce(UnixStream)) -> PathBuf {
    let backend = fake::listen(dir, what);
    recorder::record(dir, "rng", &backend, drive)
}

/// Replays it to a backend with a break; says whether that was the same, and what was told.
fn replayed(file: &Path, what: Break, options: &[&str]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    recorder::replay(file, &fake::listen(dir.path(), what), options)
}

fn items(file: &Path) -> Vec<Item> {
    let mut reader = Reader::open(file).unwrap();
    std::iter::from_fn(|| reader.next_item().unwrap()).collect()
}

fn submits(items: &[Item]) -> Vec<&Submit> {
    let submit = |item: &'_ Item| matches!(item, Item::Submit(_));
    let them = items.iter().filter(|item| submit(item));
    them.filter_map(|item| match item {
        Item::Submit(submit) => Some(submit),
        _ => None,
    })
    .collect()
}

fn useds(items: &[Item]) -> Vec<&Used> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Used(used) => Some(used),
            _ => None,
        })
        .collect()
}

fn start(stream: UnixStream) -> Session {
    Setup::default().start(Frontend::new(stream)).unwrap()
}

/// One request after another, of growing length.
fn one_by_one(session: &mut Session, count: u32) {
    for len in 1..=count {
        let memory = session.memory().clone();
        let buffers = Buffers::place(&memory, &[], len).unwrap();
        assert_eq!(session.run(0, &buffers).unwrap().len, Some(len));
        buffers.finish(&memory).unwrap();
    }
    assert_eq!(session.memory().stray().unwrap(), None);
}

#[test]
fn all_requests_are_recorded_with_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut answers = Vec::new();
    let file = recorded(dir.path(), Break::Nothing, |stream| {
        let mut session = start(stream);
        // Nobody is told of used buffers: they pass all the same.
        session.queue_mut(0).set_notify(false).unwrap();
        for len in [1, 100] {
            let memory = session.memory().clone();
            let buffers = Buffers::place(&memory, &[], len).unwrap();
            session.run(0, &buffers).unwrap();
            answers.push(buffers.finish(&memory).unwrap());
        }
    });
    let items = items(&file);
    let numbers: Vec<u64> = submits(&items).iter().map(|submit| submit.number).collect();
    assert_eq!(numbers, [1, 2]);
    let written: Vec<_> = useds(&items).iter().map(|used| &used.written).collect();
    assert_eq!(written, answers.iter().collect::<Vec<_>>());
    assert!(matches!(items[0], Item::Connected));
    assert!(matches!(
        items.last(),
        Some(Item::Closed { by_backend: false })
    ));
    let (is_equal, text) = replayed(&file, Break::Nothing, &[]);
    assert!(is_equal, "{text}");
    assert!(text.contains("2 answered the same, 0 not"), "{text}");
}

#[test]
fn the_shapes_of_chains_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let shapes = |session: &mut Session| {
        let memory = session.memory().clone();
        let addr = memory.take("buffers", 4096, 16).unwrap();
        let table = memory.take("a table", 64, 16).unwrap();
        memory.open(addr);
        let elements = [8, 24, 40].map(|len| Element::writable(addr + 64 * u64::from(len), len));
        let direct = Chain::new(elements);
        let indirect = Chain::new(elements).indirect(Table {
            direct: 1,
            ..Table::at(table)
        });
        for chain in [&direct, &indirect] {
            session.queue_mut(0).run(chain).unwrap();
        }
    };
    let file = recorded(dir.path(), Break::Nothing, |stream| {
        shapes(&mut start(stream))
    });
    let recorded = items(&file);
    let of = |submit: &&Submit| {
        let lens: Vec<u32> = submit.elements.iter().map(|element| element.len).collect();
        (lens, submit.table_after)
    };
    let shapes: Vec<_> = submits(&recorded).iter().map(of).collect();
    let lens = vec![8, 24, 40];
    assert_eq!(shapes, [(lens.clone(), None), (lens, Some(1))]);
    let (is_equal, text) = replayed(&file, Break::Nothing, &[]);
    assert!(is_equal, "{text}");
}

#[test]
fn a_backend_that_answers_otherwise_is_found_out_with_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let file = recorded(dir.path(), Break::Nothing, |stream| {
        one_by_one(&mut start(stream), 40);
    });
    let (is_equal, text) = replayed(&file, Break::LengthTooLong, &[]);
    assert!(!is_equal, "{text}");
    let expected = "request 1, queue 0: entropy, 1 bytes\n  the backend says it wrote ";
    assert!(text.contains(expected), "{text}");
    let (is_equal, text) = replayed(&file, Break::LengthTooLong, &["--ignore", "length"]);
    assert!(is_equal, "{text}");
    // Another backend takes the recording's place.
    let other = tempfile::tempdir().unwrap();
    let other = fake::listen(other.path(), Break::Nothing);
    let against = ["--against", other.to_str().unwrap()];
    let (is_equal, text) = replayed(&file, Break::Nothing, &against);
    assert!(is_equal, "{text}");
    assert!(text.contains("40 answered the same by both"), "{text}");
    let (is_equal, text) = replayed(&file, Break::LengthTooLong, &against);
    assert!(!is_equal, "{text}");
    assert!(text.contains("and the other backend 1\n"), "{text}");
    assert!(text.contains("the recording has 1 bytes written"), "{text}");
}

#[test]
fn a_backend_that_does_not_answer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = recorded(dir.path(), Break::Nothing, |stream| {
        let mut session = start(stream);
        let memory = session.memory().clone();
        // A batch, of which the broken one serves the first of each kick.
        let chains: Vec<_> = (0..3)
            .map(|_| Buffers::place(&memory, &[], 4).unwrap().chain().clone())
            .collect();
        let queue = session.queue_mut(0);
        for chain in &chains {
            queue.stage(chain).unwrap();
        }
        queue.publish().unwrap();
        queue.kick();
        for _ in &chains {
            queue.wait_used().unwrap();
        }
    });
    let (is_equal, text) = replayed(&file, Break::OneChainAKick, &[]);
    assert!(!is_equal, "{text}");
    assert!(
        text.contains("the backend gave no answer: it did not come"),
        "{text}"
    );
    assert!(
        text.contains("before it:\n    request 1, queue 0: entropy, 4 bytes"),
        "{text}"
    );
}

#[test]
fn rings_that_stop_and_start_again_are_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let file = recorded(dir.path(), Break::Nothing, |stream| {
        let mut session = start(stream);
        for _ in 0..3 {
            one_by_one(&mut session, 5);
            let base = session.stop(0).unwrap();
            assert_eq!(base, session.queue(0).base());
            session.restart(0, base).unwrap();
        }
        one_by_one(&mut session, 5);
    });
    let recorded = items(&file);
    let bases: Vec<u32> = recorded
        .iter()
        .filter_map(|item| match item {
            Item::Start(start) => Some(start.base),
            _ => None,
        })
        .collect();
    assert_eq!(bases, [0, 5, 10, 15]);
    let (is_equal, text) = replayed(&file, Break::Nothing, &[]);
    assert!(is_equal, "{text}");
}

#[test]
fn a_recording_that_is_cut_short_is_replayed_as_far_as_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = recorded(dir.path(), Break::Nothing, |stream| {
        one_by_one(&mut start(stream), 10);
    });
    let bytes = std::fs::read(&file).unwrap();
    let short = dir.path().join("short");
    std::fs::write(&short, &bytes[..bytes.len() - 30]).unwrap();
    let (is_equal, text) = replayed(&short, Break::Nothing, &[]);
    assert!(is_equal, "{text}");
    assert!(
        text.contains("note: the recording ends within a record"),
        "{text}"
    );
}
