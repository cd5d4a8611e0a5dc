//! `monitor written`: what a backend writes, with a guest at work.

use tests::process::Stream;
use tests::{DEADLINE, backend, gdb, guest, scratch};

use crate::killstorm;

/// The numbers behind `word` in a text, each in hexadecimal.
fn addresses(text: &str, word: &str) -> Vec<u64> {
    let found = text.split(word).skip(1);
    let number = |rest: &str| {
        let digits = rest.trim_start().strip_prefix("0x")?;
        let end = digits.find(|c: char| !c.is_ascii_hexdigit());
        u64::from_str_radix(&digits[..end.unwrap_or(digits.len())], 16).ok()
    };
    found.filter_map(number).collect()
}

/// The runs of pages in an answer of `monitor written`.
fn runs(text: &str) -> Vec<std::ops::RangeInclusive<u64>> {
    let lines = text.lines().filter_map(|line| line.split_once('-'));
    let number = |text: &str| {
        let digits = text.split_whitespace().next()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    lines
        .filter_map(|(first, last)| Some(number(first)?..=number(last)?))
        .collect()
}

/// Split and packed rings of this project's backend, and QEMU's.
#[test]
fn pages_that_a_backend_writes_are_told_while_gdb_is_there() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let other = scratch();
    let image = backend::disk_image(other.path(), 8);
    let foreign = backend::qemu_storage_daemon(other.path(), &image);
    for (dir, disk, options) in [
        (dir.path(), &disk, ""),
        (dir.path(), &disk, "packed"),
        (other.path(), &foreign, ""),
    ] {
        let spec = format!("blk,socket={}", disk.socket.display());
        let vmm = killstorm::start(killstorm::storming(&spec, options).gdb(dir));
        let ran = "echo @ran\\n";
        let mut gdb = gdb::start_merged(
            vmm.gdb_socket(),
            &guest::bare("virtio"),
            &[
                "monitor written blk0",
                "monitor written blk0 on",
                "monitor info queues",
                "break on_interrupt",
                "ignore 1 100",
                "continue",
                "monitor pause-devices on",
                ran,
                "monitor written blk0",
                "monitor written blk0",
                "monitor written blk0 off",
                "monitor written blk0",
                "monitor written blk0 on",
                "detach",
            ],
        );
        gdb.expect_exit(0, DEADLINE);
        let text = gdb.printed(Stream::Out);
        let unknown =
            "blk0: pages that it writes are not noted; \"monitor written blk0 on\" begins";
        assert_eq!(text.matches(unknown).count(), 2, "{text}");
        let (before, after) = text.split_once("@ran").expect(&text);
        let runs = runs(after);
        let parts = match options {
            "packed" => "packed ring",
            _ => "used",
        };
        let queues = addresses(before, parts);
        assert!(queues.len() >= 4, "{text}");
        for address in queues {
            assert!(
                runs.iter().any(|run| run.contains(&address)),
                "{address:#x}: {text}"
            );
        }
        // All that was written was told by the first of two looks.
        let nothing = "blk0: 0 pages written since the last look";
        assert_eq!(after.matches(nothing).count(), 1, "{text}");
        killstorm::finish(vmm);
    }
}
