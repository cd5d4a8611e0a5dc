//! A client that speaks gdb's remote protocol packet by packet: for what gdb does not
//! send, and for what takes gdb too long, as steps by the thousand.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::DEADLINE;

/// gdb's numbers of x86-64 registers.
pub const RIP: usize = 16;
pub const CS: usize = 18;

/// A connection without acknowledgements.
pub struct Rsp {
    stream: BufReader<UnixStream>,
}

impl Rsp {
    /// Attaches as gdb does.
    ///
    /// # Panics
    /// Nobody answers as a stub does.
    pub fn attach(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("nobody listens for gdb");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let stream = BufReader::new(stream);
        let mut rsp = Self { stream };
        let features = rsp.ask("qSupported:multiprocess+;swbreak+;hwbreak+");
        assert!(features.contains("QStartNoAckMode+"), "{features}");
        assert_eq!(rsp.ask("QStartNoAckMode"), "OK");
        rsp
    }

    /// The body of the answer, run lengths expanded.
    ///
    /// # Panics
    /// There is none in time.
    pub fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.answer()
    }

    #[track_caller]
    fn expect(&mut self, body: &str, expected: &str) {
        let answer = self.ask(body);
        assert_eq!(answer, expected, "to {body}");
    }

    fn send(&mut self, body: &str) {
        let sum = body.bytes().fold(0u8, u8::wrapping_add);
        self.write(format!("${body}#{sum:02x}").as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        let sent = self.stream.get_mut().write_all(bytes);
        sent.expect("the stub has hung up");
    }

    /// The next packet that is not text for the user.
    fn answer(&mut self) -> String {
        loop {
            let packet = self.packet();
            if text(&packet).is_none() {
                return packet;
            }
        }
    }

    fn packet(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut body = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let count = usize::from(self.byte() - 29);
                    let last = *body.last().expect("something to repeat");
                    body.extend(std::iter::repeat_n(last, count));
                }
                byte => body.push(byte),
            }
        }
        // Without acknowledgements nobody looks at the checksum.
        self.byte();
        self.byte();
        String::from_utf8_lossy(&body).into_owned()
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        let read = self.stream.read_exact(&mut byte);
        read.expect("the stub does not answer");
        byte[0]
    }

    /// What a monitor command prints.
    ///
    /// # Panics
    /// The stub has no such commands.
    pub fn monitor(&mut self, command: &str) -> String {
        self.send(&format!("qRcmd,{}", hex(command.as_bytes())));
        let mut printed = Vec::new();
        let mut answer = self.packet();
        while let Some(hex) = text(&answer) {
            printed.extend(bytes(hex));
            answer = self.packet();
        }
        assert_eq!(answer, "OK", "{command}");
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// `len` bytes of memory, as far as there are any.
    ///
    /// # Panics
    /// The stub answers with no hexadecimal digits.
    pub fn memory(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let answer = self.ask(&format!("m{addr:x},{len:x}"));
        match answer.starts_with('E') {
            true => Vec::new(),
            false => bytes(&answer).collect(),
        }
    }

    /// One instruction of thread `thread`, while the others run; the stop reply.
    ///
    /// # Panics
    /// None comes in time.
    pub fn step(&mut self, thread: usize) -> String {
        self.begin_step(thread);
        self.answer()
    }

    /// The same without waiting for the stop.
    pub fn begin_step(&mut self, thread: usize) {
        self.send(&format!("vCont;s:p1.{thread:x};c"));
    }

    /// Lets the guest run without waiting for the stop.
    pub fn resume(&mut self) {
        self.send("vCont;c");
    }

    /// Runs to the next stop; the stop reply.
    ///
    /// # Panics
    /// None comes in time.
    pub fn resume_until_stop(&mut self) -> String {
        self.resume();
        self.answer()
    }

    /// The stop reply, unless none comes in time.
    ///
    /// # Panics
    /// The stub hangs up.
    pub fn stop_within(&mut self, time: Duration) -> Option<String> {
        let set_timeout = |stream: &UnixStream, time| stream.set_read_timeout(Some(time));
        set_timeout(self.stream.get_ref(), time).expect("a socket");
        let ready = match self.stream.fill_buf() {
            Ok(bytes) => !bytes.is_empty(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("reading from the stub: {error}"),
        };
        set_timeout(self.stream.get_ref(), DEADLINE).expect("a socket");
        ready.then(|| self.answer())
    }

    /// gdb's Ctrl-C; the stop reply.
    ///
    /// # Panics
    /// None comes in time.
    pub fn interrupt(&mut self) -> String {
        self.write(b"\x03");
        self.answer()
    }

    pub fn set_hardware_breakpoint(&mut self, addr: u64) {
        self.expect(&format!("Z1,{addr:x},1"), "OK");
    }

    pub fn clear_hardware_breakpoint(&mut self, addr: u64) {
        self.expect(&format!("z1,{addr:x},1"), "OK");
    }

    pub fn set_breakpoint(&mut self, addr: u64) {
        self.expect(&format!("Z0,{addr:x},1"), "OK");
    }

    /// Whose registers and memory are meant.
    pub fn select(&mut self, thread: usize) {
        self.expect(&format!("Hgp1.{thread:x}"), "OK");
    }

    /// The thread that a stop reply names.
    ///
    /// # Panics
    /// It names none.
    pub fn stopped_thread(reply: &str) -> usize {
        let thread = reply.split_once("thread:").and_then(|(_, rest)| {
            let (_, number) = rest.split(';').next()?.split_once('.')?;
            usize::from_str_radix(number, 16).ok()
        });
        thread.unwrap_or_else(|| panic!("no thread in {reply}"))
    }

    /// All registers that gdb asks for at once, the general ones first. Those that the
    /// stub does not know are 0.
    pub fn registers(&mut self) -> Vec<u8> {
        bytes(&self.ask("g").replace('x', "0")).collect()
    }

    /// The register of this number, which has 8 bytes at most.
    pub fn register(&mut self, number: usize) -> u64 {
        let answer = self.ask(&format!("p{number:x}"));
        let bytes: Vec<_> = bytes(&answer).collect();
        let value = bytes.iter().rev();
        value.fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Leaves the guest running.
    pub fn detach(mut self) {
        self.expect("D;1", "OK");
    }
}

/// What is for the user in a packet, in hexadecimal digits.
fn text(packet: &str) -> Option<&str> {
    packet.strip_prefix('O').filter(|hex| *hex != "K")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> impl Iterator<Item = u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| {
        let digit = |n: usize| char::from(pair[n]).to_digit(16).expect("a digit") as u8;
        digit(0) << 4 | digit(1)
    })
}
