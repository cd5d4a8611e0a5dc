//! QMP, as tools that know QEMU speak it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::process::wait_until;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, scratch};
use vmm_sys_util_0_11::sock_ctrl_msg::ScmSocket;

use crate::replay::assert_private;

/// A client, as far as it is greeted.
pub struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Client {
    fn connect(path: &Path) -> Self {
        wait_until("the QMP socket", DEADLINE, || path.exists());
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self { stream, lines };
        let greeting = client.answer();
        let package = greeting["QMP"]["version"]["package"].as_str().unwrap();
        assert!(package.starts_with("Outboard"), "{greeting}");
        client
    }

    /// One that has negotiated.
    pub fn ready(path: &Path) -> Self {
        let mut client = Self::connect(path);
        assert_eq!(
            client.raw(r#"{"execute":"qmp_capabilities"}"#),
            json!({"return": {}})
        );
        client
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn raw(&mut self, text: &str) -> Value {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.answer()
    }

    /// What a command returns.
    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        let answer = self.raw(&request.to_string());
        answer
            .get("return")
            .cloned()
            .unwrap_or_else(|| panic!("{command}: {answer}"))
    }

    fn refused(&mut self, command: &str, arguments: Value) -> String {
        let request = json!({ "execute": command, "arguments": arguments });
        let answer = self.raw(&request.to_string());
        let error = &answer["error"];
        let words = [&error["class"], &error["desc"]].map(|word| word.as_str().unwrap_or_default());
        words.join(": ")
    }

    pub fn human(&mut self, line: &str) -> String {
        let text = self.ask("human-monitor-command", json!({ "command-line": line }));
        text.as_str().unwrap().replace("\r\n", "\n")
    }

    fn send_file(&mut self, request: &str, file: &File) -> Value {
        let sent = self
            .stream
            .send_with_fd(request.as_bytes(), file.as_raw_fd());
        assert_eq!(sent.unwrap(), request.len());
        self.answer()
    }
}

fn start(dir: &Path, name: &str, cmdline: &str) -> (Running, PathBuf) {
    let socket = dir.join("qmp");
    let vmm = Vmm::new(guest::bare(name)).cmdline(cmdline).cpus(2).arg(
        "--qmp",
        format!("unix:{},server=on,wait=off", socket.display()),
    );
    (vmm.start(), socket)
}

#[test]
fn a_client_negotiates_and_is_refused_in_qemus_words() {
    let dir = scratch();
    let (mut vmm, socket) = start(dir.path(), "misbehave", "case=halt-forever");
    let mut client = Client::connect(&socket);
    assert_private(&socket);
    let refused = |class: &str, desc: &str| json!({"error": {"class": class, "desc": desc}});
    for (request, class, desc) in [
        (
            r#"{"execute":"query-status"}"#,
            "CommandNotFound",
            "Expecting capabilities negotiation with 'qmp_capabilities'",
        ),
        (r#"[]"#, "GenericError", "QMP input must be a JSON object"),
        (
            r#"{"arguments":{}}"#,
            "GenericError",
            "QMP input lacks member 'execute'",
        ),
        (
            r#"{"execute":5}"#,
            "GenericError",
            "QMP input member 'execute' must be a string",
        ),
        (
            r#"{"exec":"x"}"#,
            "GenericError",
            "QMP input member 'exec' is unexpected",
        ),
    ] {
        assert_eq!(client.raw(request), refused(class, desc));
    }
    let nonsense = client.raw("nonsense\n")["error"]["desc"].to_string();
    assert!(nonsense.contains("JSON parse error"), "{nonsense}");
    let answer = client.raw(r#"{"execute":"qmp_capabilities","id":[7]}"#);
    assert_eq!(answer, json!({"return": {}, "id": [7]}));
    for (command, arguments, error) in [
        (
            "bogus",
            json!({}),
            "CommandNotFound: The command bogus has not been found",
        ),
        (
            "stop",
            json!({"x": 1}),
            "GenericError: Parameter 'x' is unexpected",
        ),
        (
            "dump-guest-memory",
            json!({"paging": false}),
            "GenericError: Parameter 'protocol' is missing",
        ),
        (
            "dump-guest-memory",
            json!({"paging": 0, "protocol": "x"}),
            "GenericError: Invalid parameter type for 'paging', expected: boolean",
        ),
        (
            "dump-guest-memory",
            json!({"paging": false, "protocol": "x"}),
            "GenericError: parameter 'protocol' must start with 'file:' or 'fd:'",
        ),
        (
            "dump-guest-memory",
            json!({"paging": false, "protocol": "fd:none"}),
            "GenericError: File descriptor named 'none' has not been found",
        ),
        (
            "getfd",
            json!({"fdname": "none"}),
            "GenericError: No file descriptor supplied via SCM_RIGHTS",
        ),
        (
            "closefd",
            json!({"fdname": "none"}),
            "GenericError: File descriptor named 'none' not found",
        ),
    ] {
        assert_eq!(client.refused(command, arguments), error);
    }
    assert_eq!(client.ask("quit", json!({})), json!({}));
    vmm.process.expect_exit(0, DEADLINE);
    assert!(!socket.exists());
}

#[test]
fn a_machine_is_stopped_resumed_and_reset() {
    let dir = scratch();
    let (mut vmm, socket) = start(dir.path(), "misbehave", "case=halt-forever");
    vmm.process.wait_for("halt-forever", DEADLINE);
    let mut client = Client::ready(&socket);
    let status = |client: &mut Client| client.ask("query-status", json!({}));
    assert_eq!(
        status(&mut client),
        json!({"status": "running", "running": true})
    );
    assert_eq!(client.ask("stop", json!({})), json!({}));
    // Another client sees the same.
    let mut other = Client::ready(&socket);
    assert_eq!(
        status(&mut other),
        json!({"status": "paused", "running": false})
    );
    assert_eq!(other.ask("cont", json!({})), json!({}));
    assert_eq!(status(&mut client)["running"], true);
    assert_eq!(
        client.ask("query-target", json!({})),
        json!({"arch": "x86_64"})
    );
    let cpus = client.ask("query-cpus-fast", json!({}));
    let threads: Vec<_> = (0..2)
        .map(|n| cpus[n]["thread-id"].as_u64().unwrap())
        .collect();
    let task = |thread: u64| format!("/proc/{}/task/{thread}/comm", vmm.process.pid());
    let names = [0, 1].map(|n| std::fs::read_to_string(task(threads[n])).unwrap());
    assert_eq!(names, ["vcpu0\n", "vcpu1\n"]);
    // It is not taken before the reset: this guest would die of it.
    client.ask("stop", json!({}));
    assert_eq!(client.ask("inject-nmi", json!({})), json!({}));
    let lines = vmm.process.lines().len();
    assert_eq!(client.ask("system_reset", json!({})), json!({}));
    vmm.process.wait_for_after(lines, "halt-forever", DEADLINE);
    client.ask("quit", json!({}));
    vmm.process.expect_exit(0, DEADLINE);
}

/// What drgn 0.3.0 asks when it is given `--qemu`, in its order and form.
#[test]
fn drgns_requests_find_memory_and_registers() {
    let dir = scratch();
    let (mut vmm, socket) = start(dir.path(), "debug", "");
    vmm.process.wait_for("debug: ready", DEADLINE);
    let mut client = Client::ready(&socket);
    let target = client.raw(r#"{"execute":"query-target"}"#);
    assert_eq!(target["return"]["arch"], "x86_64");
    let tree = client.human("info mtree -f");
    assert!(
        tree.contains("  0000000000000000-0000000003ffffff (prio 0, ram): pc.ram\n"),
        "{tree}"
    );
    assert!(
        tree.contains("  00000000000003f8-00000000000003ff (prio 0, i/o): COM1\n"),
        "{tree}"
    );
    let host = client.human("gpa2hva 0x1000");
    let host = host
        .strip_prefix("Host virtual address for 0x1000 (pc.ram) is 0x")
        .unwrap();
    let host = u64::from_str_radix(host.trim(), 16).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", vmm.process.pid())).unwrap();
    let is_ram = |line: &&str| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|addr| u64::from_str_radix(addr, 16).unwrap());
        (start..end).contains(&host)
    };
    let line = maps.lines().find(is_ram).unwrap();
    assert!(line.contains("outboard-ram"), "{line}");

    let mut file = tempfile::tempfile().unwrap();
    let named = client.send_file(
        r#"{"execute":"getfd","arguments":{"fdname":"drgn-dump"}}"#,
        &file,
    );
    assert_eq!(named, json!({"return": {}}));
    let dumped = client.raw(
        r#"{"execute":"dump-guest-memory","arguments":{"paging":false,"protocol":"fd:drgn-dump","begin":0,"length":1}}"#,
    );
    assert_eq!(dumped, json!({"return": {}}));
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(
        bytes.starts_with(b"\x7fELF") && bytes.len() < 64 << 10,
        "{} bytes",
        bytes.len()
    );
    // It is gone with the dump.
    let closed = client.refused("closefd", json!({"fdname": "drgn-dump"}));
    assert_eq!(
        closed,
        "GenericError: File descriptor named 'drgn-dump' not found"
    );
    client.ask("quit", json!({}));
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn the_human_monitor_prints_what_qemus_does() {
    let dir = scratch();
    let (mut vmm, socket) = start(dir.path(), "debug", "");
    vmm.process.wait_for("debug: ready", DEADLINE);
    let mut client = Client::ready(&socket);
    client.ask("stop", json!({}));
    let registers = client.human("info registers");
    assert!(registers.starts_with("\nCPU#0\nRAX="), "{registers}");
    assert_eq!(client.human("info registers -a").matches("CPU#").count(), 2);
    assert!(client.human("info mem").starts_with("0000000000000000-"));
    // The guest's code begins at 1 MiB, where a page is mapped to itself.
    assert_eq!(client.human("gva2gpa 0x100000"), "gpa: 0x100000\n");
    assert_eq!(client.human("gva2gpa 0x7000000000"), "Unmapped\n");
    assert_eq!(
        client.human("gpa2hva 0xd0000000"),
        "No memory is mapped at address 0xd0000000\n"
    );
    let bytes = client.human("xp /20xb 0x100000");
    let lines: Vec<_> = bytes.lines().map(|line| line.split(' ').count()).collect();
    assert_eq!(lines, [9, 9, 5]);
    assert!(bytes.starts_with("0000000000100000: 0x"), "{bytes}");
    assert_eq!(
        client.human("xp/2xb 0xd0000000"),
        "00000000d0000000: Cannot access memory\n"
    );
    assert_eq!(client.human("xp /2g 0x3fffff8").lines().count(), 1);
    assert_eq!(client.human("bogus x"), "unknown command: 'bogus x'\n");
    for line in [
        "xp /99999999999999999999xb 0",
        "xp /9999999xg 0",
        "xp /xs 0",
        "xp x",
        "xp",
        "",
    ] {
        assert!(client.human(line).lines().count() == 1, "{line}");
    }
    client.ask("quit", json!({}));
    vmm.process.expect_exit(0, DEADLINE);
}
