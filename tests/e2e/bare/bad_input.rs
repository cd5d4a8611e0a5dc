//! What a user can get wrong gives one clear line and the documented status.

use std::os::unix::net::UnixListener;
use std::path::Path;

use tests::vmm::Vmm;
use tests::{backend, guest, scratch, unmet};

use crate::host::provides;

const BAD_USAGE: i32 = 2;
const HOST_FAILURE: i32 = 1;

/// Runs and expects `status` and one line from the VMM that holds all of `parts`.
fn refused(vmm: Vmm, status: i32, parts: &[&str]) {
    let vmm = vmm.run(status);
    let messages = vmm.messages();
    let errors: Vec<_> = messages
        .lines()
        .filter(|line| line.starts_with("outboard: "))
        .collect();
    assert_eq!(errors.len(), 1, "{}", vmm.process.transcript());
    for part in parts {
        assert!(errors[0].contains(part), "no {part:?} in {:?}", errors[0]);
    }
    assert!(!messages.contains("panicked"), "{messages}");
}

fn hello() -> Vmm {
    Vmm::new(guest::bare("hello"))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn kernel_that_is_missing() {
    refused(
        Vmm::new("/nonexistent"),
        BAD_USAGE,
        &["cannot open kernel /nonexistent", "No such file"],
    );
    refused(
        Vmm::new("/tmp"),
        BAD_USAGE,
        &["cannot open kernel /tmp", "directory"],
    );
}

/// Width of the host's physical addresses, which are the guest's.
fn physical_bits() -> u32 {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let (_, sizes) = cpuinfo.split_once("address sizes\t: ").unwrap();
    sizes.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn memory_beyond_the_guests_addresses() {
    const MOST_BITS: u32 = 40;
    let bits = physical_bits();
    if bits > MOST_BITS {
        unmet::note("memory that is more than a guest can address is refused");
        return;
    }
    let all = format!("{}G", 1 << (bits - 30));
    refused(
        hello().arg("--memory", all),
        BAD_USAGE,
        &[
            "bytes of RAM reach up to",
            &format!("a guest {bits} bits"),
            "--memory",
        ],
    );
}

#[test]
fn symbols_that_are_none() {
    let dir = scratch();
    let text = write(dir.path(), "text", b"ffffffff81000000 T _text\n");
    let with = |symbols: &Path| hello().gdb(dir.path()).arg("--symbols", symbols);
    refused(
        with(&text),
        BAD_USAGE,
        &["text is no source of symbols: it is no ELF file"],
    );
    refused(
        with(Path::new("/nonexistent")),
        BAD_USAGE,
        &["cannot read symbols from /nonexistent", "No such file"],
    );
    let without_gdb = hello().arg("--symbols", guest::bare("hello"));
    refused(without_gdb, BAD_USAGE, &["add --gdb ADDRESS"]);
}

/// Runs with these words, and expects all of `parts` behind clap's own words.
fn misspelt(words: &str, parts: &[&str]) {
    let mut command = std::process::Command::new(tests::program::own("outboard"));
    let output = command.args(words.split(' ')).output().unwrap();
    assert_eq!(output.status.code(), Some(BAD_USAGE), "{words}");
    let said = String::from_utf8(output.stderr).unwrap();
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn the_words_of_other_programs_get_a_hint() {
    misspelt(
        "run -kernel vmlinux -m 512 -append quiet -s -S",
        &[
            "hint: for QEMU's -kernel there is --kernel FILE",
            "hint: for QEMU's -m there is --memory SIZE",
            "hint: for QEMU's -append there is --cmdline STR",
            "hint: for QEMU's -s there is --gdb 1234",
            "hint: for QEMU's -S there is --gdb-wait",
        ],
    );
    misspelt(
        "run vmlinux",
        &["hint: the kernel is given as --kernel vmlinux"],
    );
    misspelt("vmlinux", &["hint: a guest is run by `outboard run"]);
}

#[test]
fn kernel_that_is_none() {
    let dir = scratch();
    let text = write(dir.path(), "text", b"#!/bin/sh\n");
    refused(
        Vmm::new(text),
        BAD_USAGE,
        &["neither an ELF file nor a bzImage"],
    );
    refused(
        Vmm::new("/etc/passwd"),
        BAD_USAGE,
        &["/etc/passwd", "it is text", "give a vmlinux or a bzImage"],
    );
    let empty = write(dir.path(), "empty", b"");
    refused(
        Vmm::new(empty),
        BAD_USAGE,
        &["neither an ELF file nor a bzImage"],
    );
}

#[test]
fn kernel_that_is_truncated() {
    let dir = scratch();
    let whole = std::fs::read(guest::bare("hello")).unwrap();
    for len in [10, 64, 100, 5000] {
        let cut = write(dir.path(), "cut", &whole[..len]);
        refused(Vmm::new(cut), BAD_USAGE, &["is truncated: it needs"]);
    }
}

#[test]
fn kernel_for_another_machine() {
    let dir = scratch();
    let mut bytes = std::fs::read(guest::bare("hello")).unwrap();
    bytes[18] = 183;
    let arm = write(dir.path(), "arm", &bytes);
    refused(
        Vmm::new(arm),
        BAD_USAGE,
        &["made for AArch64 (64-bit)", "x86-64"],
    );
}

#[test]
fn kernel_that_is_too_large_for_ram() {
    let dir = scratch();
    let mut bytes = std::fs::read(guest::bare("hello")).unwrap();
    let table = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    let segment = bytes[table..]
        .chunks_exact_mut(56)
        .find(|s| s[..4] == [1, 0, 0, 0])
        .unwrap();
    segment[40..48].copy_from_slice(&(1u64 << 32).to_le_bytes());
    let large = write(dir.path(), "large", &bytes);
    refused(
        Vmm::new(large),
        BAD_USAGE,
        &["does not fit into guest RAM", "--memory"],
    );
}

#[test]
fn initrd_that_is_missing_or_too_large() {
    refused(
        hello().arg("--initrd", "/nonexistent"),
        BAD_USAGE,
        &["cannot read initrd /nonexistent"],
    );
    let dir = scratch();
    let large = dir.path().join("initrd");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    refused(
        hello().arg("--initrd", large),
        BAD_USAGE,
        &["initrd", "does not fit", "--memory"],
    );
}

#[test]
fn files_that_are_no_files() {
    for (kernel, part) in [
        ("/dev/zero", "no end within"),
        ("/dev/null", "neither an ELF file"),
        ("/proc/cpuinfo", "neither an ELF file"),
    ] {
        refused(Vmm::new(kernel), BAD_USAGE, &[kernel, part]);
    }
    for (initrd, part) in [
        ("/dev/zero", "no end within"),
        ("/dev/null", "is empty"),
        ("/tmp", "directory"),
    ] {
        refused(
            hello().arg("--initrd", initrd),
            BAD_USAGE,
            &["initrd", initrd, part],
        );
    }
    refused(
        hello().arg("--config", "/dev/zero"),
        BAD_USAGE,
        &["/dev/zero", "more than"],
    );
    refused(
        hello().arg("--config", "/tmp"),
        BAD_USAGE,
        &["/tmp", "directory"],
    );
    let dir = scratch();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let symbols = hello().gdb(dir.path()).arg("--symbols", &fifo);
    refused(symbols, BAD_USAGE, &["fifo", "no regular file"]);
}

#[test]
fn numbers_out_of_range() {
    refused(
        hello().arg("--cpus", "0"),
        BAD_USAGE,
        &["0 vCPUs", "1 to 64"],
    );
    refused(
        hello().arg("--cpus", "65"),
        BAD_USAGE,
        &["65 vCPUs", "1 to 64"],
    );
    refused(
        hello().arg("--memory", "16M"),
        BAD_USAGE,
        &["16777216 bytes", "32 MiB"],
    );
    refused(
        hello().arg("--memory", "much"),
        BAD_USAGE,
        &["\"much\"", "512M"],
    );
    let long = "x".repeat(2048);
    refused(
        hello().cmdline(&long),
        BAD_USAGE,
        &["2048 bytes long", "2047"],
    );
}

#[test]
fn devices_that_cannot_be() {
    let device = |spec: &str| hello().arg("--device", spec);
    refused(device("floppy,socket=/a"), BAD_USAGE, &["floppy"]);
    refused(device("blk"), BAD_USAGE, &["add socket=PATH"]);
    refused(
        device("blk,socket=/a,x=1"),
        BAD_USAGE,
        &["\"x\" is not known"],
    );
    let twice = device("blk,socket=/a,id=d").arg("--device", "net,socket=/b,id=d");
    refused(twice, BAD_USAGE, &["two devices are named \"d\""]);
}

#[test]
fn backend_that_is_absent() {
    refused(
        hello().arg("--device", "blk,socket=/nonexistent"),
        HOST_FAILURE,
        &["blk0", "/nonexistent"],
    );
}

#[test]
fn gpu_without_a_display() {
    refused(
        hello().arg("--device", "gpu,socket=/nonexistent"),
        HOST_FAILURE,
        &["gpu0", "display", "VHOST_USER_GPU_SET_SOCKET"],
    );
}

#[test]
fn backend_that_accepts_and_says_nothing() {
    let dir = scratch();
    let socket = dir.path().join("mute.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let spec = format!("blk,socket={}", socket.display());
    refused(
        hello().arg("--device", spec),
        HOST_FAILURE,
        &["blk0", "GET_FEATURES"],
    );
}

#[test]
fn backend_that_hangs_up_or_talks_nonsense() {
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0xff; 64]] {
        let dir = scratch();
        let socket = dir.path().join("bad.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = answer.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 12]);
            let _ = std::io::Write::write_all(&mut stream, &answer);
        });
        let spec = format!("blk,socket={}", socket.display());
        refused(
            hello().arg("--device", spec),
            HOST_FAILURE,
            &["blk0", "bad.sock"],
        );
        server.join().unwrap();
    }
}

#[test]
fn gdb_addresses_that_cannot_be() {
    refused(hello().arg("--gdb", "nonsense"), BAD_USAGE, &["nonsense"]);
    refused(
        hello().arg("--gdb", "unix:/nonexistent/dir/gdb"),
        HOST_FAILURE,
        &["/nonexistent/dir/gdb"],
    );
    let dir = scratch();
    let path = dir.path().join("gdb");
    let _listener = UnixListener::bind(&path).unwrap();
    let address = format!("unix:{}", path.display());
    refused(hello().arg("--gdb", address), HOST_FAILURE, &["gdb"]);
    refused(hello().gdb_wait(), BAD_USAGE, &["--gdb-wait needs --gdb"]);
    refused(hello().gdb_kill(), BAD_USAGE, &["--gdb-kill needs --gdb"]);
}

#[test]
fn serial_and_configuration_that_cannot_be() {
    refused(
        hello().arg("--serial", "tty"),
        BAD_USAGE,
        &["\"tty\"", "stdio"],
    );
    refused(
        hello().arg("--serial", "file=/nonexistent/x"),
        HOST_FAILURE,
        &["/nonexistent/x"],
    );
    refused(
        hello().arg("--config", "/nonexistent"),
        BAD_USAGE,
        &["/nonexistent"],
    );
    let dir = scratch();
    let bad = write(dir.path(), "bad.toml", b"\ncpus = \"many\"\n");
    refused(
        hello().arg("--config", bad),
        BAD_USAGE,
        &["bad.toml, line 2", "\"many\""],
    );
}

#[test]
fn virtiofsd_without_a_tag() {
    if !provides("virtiofsd") {
        return;
    }
    let dir = scratch();
    let shared = scratch();
    let fs = backend::virtiofsd(dir.path(), shared.path(), &[]);
    refused(
        hello().device("fs", &fs.socket),
        HOST_FAILURE,
        &["does not offer VHOST_USER_PROTOCOL_F_CONFIG", "--tag TAG"],
    );
}
