//! What the checks of device types have in common: requests with answers, and configuration.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{GetConfig, SetConfig};

use super::bench::Bench;
use super::types::{Fault, Verdict, demand};
use crate::driver::{Buffers, Session};

/// What no device writes by chance into all bytes of an answer.
pub const UNWRITTEN: u8 = 0xee;

/// What a request came back with.
pub struct Answer {
    /// The whole writable part.
    pub bytes: Vec<u8>,
    /// The used length.
    pub len: u32,
}

impl Answer {
    pub fn u32(&self, at: usize) -> u32 {
        number::<4>(&self.bytes, at) as u32
    }
}

/// Makes a request whose answer begins as [`UNWRITTEN`], and waits for it.
pub fn exchange(
    session: &mut Session,
    queue: usize,
    readable: &[u8],
    writable: u32,
) -> Result<Answer, Fault> {
    let buffers = Buffers::place(session.memory(), readable, writable)?;
    buffers.refill(session.memory(), UNWRITTEN)?;
    let used = session.run(queue, &buffers)?;
    Ok(Answer {
        bytes: buffers.finish(session.memory())?,
        len: used.len.unwrap_or(writable),
    })
}

/// A session of the usual set-up.
pub fn started(bench: &Bench) -> Result<Session, Fault> {
    Ok(bench.start(&bench.setup())?)
}

/// The configuration space from its begin.
pub struct Config(Vec<u8>);

impl Config {
    pub fn read(session: &mut Session, size: u32) -> Result<Self, Fault> {
        let reply = session.frontend().request(&GetConfig { size })?;
        let found = reply.0.len();
        demand(found == size as usize, || {
            format!("GET_CONFIG of {size} bytes returned {found}")
        })?;
        Ok(Self(reply.0))
    }

    /// A number of `N` bytes.
    pub fn number<const N: usize>(&self, at: usize) -> u64 {
        number::<N>(&self.0, at)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A session, and the first `size` bytes of the configuration space.
pub fn configured(bench: &Bench, size: u32) -> Result<(Session, Config), Fault> {
    let setup = bench.setup().require_protocol(Protocol::CONFIG);
    let mut session = bench.start(&setup)?;
    let config = Config::read(&mut session, size)?;
    Ok((session, config))
}

/// Writes configuration space as a driver does.
pub fn configure(session: &mut Session, offset: u32, data: &[u8]) -> Verdict {
    Ok(session.frontend().execute(&SetConfig { offset, data })?)
}

/// A little-endian number; bytes that are not there are zero.
pub fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.iter().skip(at).take(N).rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Numbers one after another, little-endian.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian_and_end_with_the_bytes() {
        let bytes = words(&[0x0403_0201, 5]);
        assert_eq!(number::<4>(&bytes, 0), 0x0403_0201);
        assert_eq!(number::<2>(&bytes, 3), 0x0504);
        assert_eq!(number::<8>(&bytes, 4), 5);
        assert_eq!(number::<4>(&bytes, 9), 0);
    }
}
