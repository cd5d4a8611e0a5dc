//! Traces that gdb saves in files, and what it reads back for them.

use std::path::Path;
use std::process::{Command, Stdio};

use super::gdb_test::{assert_lines, output};
use super::tests::LOOP;
use super::trace_test::STEPPING;
use crate::testing::Guest;

/// What a gdb without a guest makes of a trace file.
fn opened(file: &Path, commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch"]).stdin(Stdio::null());
    let open = format!("target tfile {}", file.display());
    for command in [&[&*open], commands].concat() {
        gdb.args(["-ex", command]);
    }
    let output = gdb.output().expect("gdb is not installed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    println!("{text}");
    text
}

#[test]
fn a_trace_file_shows_what_the_guest_showed() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("trace.gdb");
    let variable = "tvariable $passes = 40\n";
    let counted = "trace *0x1004\nactions\nteval $passes = $passes + 1\ncollect $passes\nend\n";
    std::fs::write(&script, format!("{variable}{counted}{STEPPING}")).unwrap();
    let file = dir.path().join("trace");
    output(
        &guest,
        &[
            "break *0x1000",
            "continue",
            &format!("source {}", script.display()),
            "ignore 1 1",
            "continue",
            "tstop",
            &format!("tsave {}", file.display()),
        ],
    );
    guest.until_undisturbed();
    let text = opened(
        &file,
        &[
            "tstatus",
            "info tracepoints",
            "info tvariables",
            "tfind start",
            "print $pc",
            "print $rbx",
            "tfind 2",
            "print $pc",
            "print $rbx",
            "print $passes",
            "tfind 5",
            "print $pc",
            "set $rax_then = $rax & 255",
            "print *(unsigned char *)0x8000 == $rax_then",
            "tfind 13",
            "print $pc",
        ],
    );
    assert_lines(
        &text,
        &[
            "Using a trace file.",
            "Trace stopped by a tstop command ().",
            "Collected 14 trace frames.",
            "\ttracepoint already hit 2 times",
            "        teval $passes = $passes + 1",
            "        collect $passes",
            "        while-stepping 4",
            "          collect $rax, *(unsigned char *)0x8000",
            "$passes         40          <undefined>",
            "Found trace frame 0, tracepoint 2",
            "$1 = (void (*)()) 0x1003",
            "$2 = 0",
            "Found trace frame 2, tracepoint 1",
            "$3 = (void (*)()) 0x1004",
            "$4 = <unavailable>",
            "$5 = 41",
            "Found trace frame 5, tracepoint 2",
            "$6 = (void (*)()) 0x1007",
            "$7 = 1",
            "Found trace frame 13, tracepoint 2",
            "$8 = (void (*)()) 0x1000",
        ],
    );
    guest.until_undisturbed();
}

#[test]
fn tracepoints_and_the_buffer_by_packets() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    for packet in [
        "QTinit",
        "QTDP:1:1003:E:2:0-",
        "QTDP:-1:1003:X3,220127-",
        "QTDP:-1:1003:SM-1,8000,2",
        "QTDPsrc:1:1003:cmd:0:3:656e64",
    ] {
        assert_eq!(rsp.ask(packet), "OK", "{packet}");
    }
    for (packet, answer) in [
        ("QTDPsrc:1:1003:who:0:3:656e64", "E79"),
        ("QTDPsrc:2:1003:at:0:1:61", "E79"),
        ("QTDPsrc", "E16"),
        ("QTSave:2f746d702f78", "E79"),
        ("qTBuffer:0", "E16"),
    ] {
        rsp.send(packet);
        assert_eq!(rsp.told().1, answer, "{packet}");
    }
    rsp.send("QTSave:2f746d702f78");
    assert!(rsp.told().0.contains("this end writes no files for gdb"));
    for (packet, answer) in [
        ("qTfP", "T1:1003:E:2:0"),
        ("qTsP", "A1:1003:X3,220127"),
        ("qTsP", "S1:1003:M-1,8000,2"),
        ("qTsP", "Z1:1003:cmd:0:3:656e64"),
        ("qTsP", "l"),
        ("qTsP", "l"),
        ("qTBuffer:0,100", "l"),
        ("QTStart", "OK"),
        ("Z0,1000,1", "OK"),
    ] {
        assert_eq!(rsp.ask(packet), answer, "{packet}");
    }
    for _ in 0..2 {
        rsp.send("vCont;c");
        rsp.told();
    }
    let whole = rsp.ask("qTBuffer:0,ffffffffffffffff");
    // Tracepoint 1, and registers first.
    assert_eq!((&whole[..4], &whole[12..14]), ("0100", "52"), "{whole}");
    let memory = "4d00800000000000000200";
    assert!(whole.matches(memory).count() >= 2, "{whole}");
    let len = whole.len() / 2;
    let mut pieces = String::new();
    while let piece = rsp.ask(&format!("qTBuffer:{:x},7", pieces.len() / 2))
        && piece != "l"
    {
        pieces.push_str(&piece);
    }
    assert_eq!(pieces, whole);
    assert_eq!(rsp.ask(&format!("qTBuffer:{len:x},7")), "l");
    rsp.send("vCont;c");
    rsp.told();
    assert!(
        rsp.ask("qTBuffer:0,ffff").len() > whole.len(),
        "there is more"
    );
    assert_eq!(rsp.ask("D"), "OK");
    guest.until_undisturbed();
}
