//! A client that speaks gdb's remote protocol packet by packet.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::DEADLINE;

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
        let sum = body.bytes().fold(0u8, u8::wrapping_add);
        let packet = format!("${body}#{sum:02x}");
        let sent = self.stream.get_mut().write_all(packet.as_bytes());
        sent.expect("the stub has hung up");
        self.answer()
    }

    fn answer(&mut self) -> String {
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
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut text = Vec::new();
        let mut answer = self.ask(&format!("qRcmd,{hex}"));
        while let Some(hex) = answer.strip_prefix('O').filter(|hex| *hex != "K") {
            text.extend(bytes(hex));
            answer = self.answer();
        }
        assert_eq!(answer, "OK", "{command}");
        String::from_utf8_lossy(&text).into_owned()
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
}

fn bytes(hex: &str) -> impl Iterator<Item = u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| {
        let digit = |n: usize| char::from(pair[n]).to_digit(16).expect("a digit") as u8;
        digit(0) << 4 | digit(1)
    })
}
