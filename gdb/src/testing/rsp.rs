//! A client that speaks raw packets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub struct Rsp {
    pub stream: UnixStream,
    acknowledge: bool,
}

impl Rsp {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        Self {
            stream,
            acknowledge: true,
        }
    }

    /// Sends a packet and returns the body of the next one that comes.
    pub fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.answer()
    }

    pub fn send(&mut self, body: &str) {
        self.stream.write_all(&packet(body.as_bytes())).unwrap();
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The body of the next packet, run lengths expanded.
    pub fn answer(&mut self) -> String {
        let body = self.try_answer();
        body.expect("the connection was closed instead of an answer")
    }

    /// `None` when the connection is closed.
    pub fn try_answer(&mut self) -> Option<String> {
        while self.byte()? != b'$' {}
        let mut body = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                b'*' => {
                    let count = self.byte()? - 29;
                    let last = *body.last().unwrap();
                    body.extend(std::iter::repeat_n(last, usize::from(count)));
                }
                byte => body.push(byte),
            }
        }
        self.byte()?;
        self.byte()?;
        if self.acknowledge {
            self.stream.write_all(b"+").ok();
        }
        Some(String::from_utf8(body).unwrap())
    }

    /// `None` at the end of the connection, which a reset counts as.
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// The console text before the next other packet, and that packet.
    pub fn told(&mut self) -> (String, String) {
        let mut text = String::new();
        loop {
            let body = self.answer();
            match body.strip_prefix('O').filter(|hex| *hex != "K") {
                Some(hex) => text.push_str(&unhex(hex)),
                None => return (text, body),
            }
        }
    }

    /// A monitor command's output.
    pub fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(&format!("qRcmd,{hex}"));
        let (text, end) = self.told();
        assert_eq!(end, "OK");
        text
    }

    /// A register by gdb's number, as an integer.
    pub fn register(&mut self, number: usize) -> u64 {
        let hex = self.ask(&format!("p{number:x}"));
        u64::from_str_radix(&hex, 16).map(u64::swap_bytes).unwrap()
    }
}

impl Drop for Rsp {
    /// Closing alone would not do: another test's child process has a copy of the
    /// descriptor between its fork and its exec.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

pub fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

fn unhex(hex: &str) -> String {
    let digits: Vec<_> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits
        .chunks(2)
        .map(|pair| char::from(pair[0] << 4 | pair[1]))
        .collect()
}
