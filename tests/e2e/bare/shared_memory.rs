//! Shared memory regions: files of a backend in the guest's address space.

use std::path::{Path, PathBuf};

use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, scratch};

const PAGE: usize = 4096;
const TEXT: &[u8] = b"written by the host\0";

/// Two pages: a text, and letters.
fn board_file(dir: &Path) -> PathBuf {
    let path = dir.join("board");
    let mut pages = vec![b'w'; 2 * PAGE];
    pages[..TEXT.len()].copy_from_slice(TEXT);
    std::fs::write(&path, pages).unwrap();
    path
}

fn check_file(path: &Path) {
    let pages = std::fs::read(path).unwrap();
    assert!(pages[64..].starts_with(b"written by the guest\0"));
    assert!(
        pages[PAGE..].iter().all(|byte| *byte == b'w'),
        "what the guest may only read has not changed"
    );
}

fn vmm(socket: &Path, cmdline: &str) -> Vmm {
    Vmm::new(guest::bare("board"))
        .cmdline(cmdline)
        .device("type=63", socket)
}

#[test]
fn a_guest_reads_and_writes_a_file_of_the_backend_in_place() {
    let dir = scratch();
    let file = board_file(dir.path());
    let board = backend::board(dir.path(), &file);
    let vmm = vmm(&board.socket, "").run(0);
    let console = vmm.console();
    assert!(
        console.contains("board: base=100000000 size=2000"),
        "{console}"
    );
    assert!(
        console.contains("board: reads written by the host\n"),
        "{console}"
    );
    assert!(console.contains("board: ok"), "{console}");
    // The request to hang up what hangs already.
    let refusal = "a backend's request is refused";
    assert!(vmm.messages().contains(refusal), "{}", vmm.messages());
    check_file(&file);
}

#[test]
fn what_a_lost_backend_has_mapped_stays_until_its_successor_maps_it_again() {
    let dir = scratch();
    let file = board_file(dir.path());
    let mut board = backend::board(dir.path(), &file);
    let mut vmm = vmm(&board.socket, "wait").start();
    vmm.process.wait_for("board: waits", DEADLINE);
    board.process.signal(libc::SIGKILL);
    vmm.process.wait_for("the backend is gone", DEADLINE);
    board = backend::board(dir.path(), &file);
    vmm.process.wait_for("the backend is back", DEADLINE);
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, DEADLINE);
    assert!(
        vmm.console().contains("board: ok"),
        "{}",
        vmm.process.transcript()
    );
    drop(board);
    check_file(&file);
}

/// The vCPU that meets it runs on; the device needs a reset, and works again behind it.
#[test]
fn a_backend_that_cuts_a_mapped_file_short_costs_its_own_device_and_nothing_else() {
    for cmdline in ["cut", "cut masked"] {
        let dir = scratch();
        let path = board_file(dir.path());
        let board = backend::board(dir.path(), &path);
        let mut vmm = vmm(&board.socket, cmdline).start();
        vmm.process.wait_for("board: waits", DEADLINE);
        let pages = std::fs::read(&path).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        vmm.process.send(b"x");
        for text in [
            "board: runs on",
            "the backend has cut a file short",
            "board: was reset",
        ] {
            vmm.process.wait_for(text, DEADLINE);
        }
        std::fs::write(&path, pages).unwrap();
        vmm.process.send(b"x");
        vmm.process.expect_exit(0, DEADLINE);
        let console = vmm.console();
        assert!(console.contains("board: ok"), "{cmdline}: {console}");
    }
}
