//! Requests to a disk, and its configuration space.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::GetConfig;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_RO, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};

use crate::check::bench::Bench;
use crate::check::types::{Fault, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, Session};

pub const BLK: Need = Need::Type(DeviceType::BLK);
pub const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
pub const REQUEST: Source = Source::Virtio("5.2.6 Device Operation");
pub const OPERATION: Source = Source::Virtio("5.2.6.2 Device Requirements: Device Operation");
pub const LAYOUT: Source = Source::Virtio("5.2.4 Device configuration layout");

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

pub const SECTOR: u64 = 512;
/// Bytes of what is read and written: a multiple of every logical block size.
pub const BLOCK: usize = 4096;
/// Sectors of it.
pub const SECTORS: u64 = BLOCK as u64 / SECTOR;

/// What a request came back with.
pub struct Reply {
    pub data: Vec<u8>,
    pub status: u8,
    /// The used length.
    pub len: u32,
}

/// A status that no device writes.
pub const NO_STATUS: u8 = 0xee;

pub fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(sector.to_le_bytes());
    bytes
}

/// Makes a request whose data goes one way or the other.
pub fn request(
    session: &mut Session,
    kind: u32,
    sector: u64,
    out: &[u8],
    into: usize,
) -> Result<Reply, Fault> {
    let readable = [header(kind, sector), out.to_vec()].concat();
    let buffers = Buffers::place(session.memory(), &readable, into as u32 + 1)?;
    buffers.refill(session.memory(), NO_STATUS)?;
    // Old drivers put header, data and status into descriptors of their own, and so do most.
    let chain = buffers.split(&[16], &[into as u32]);
    let used = session.queue_mut(0).run(&chain)?;
    let mut data = buffers.finish(session.memory())?;
    let status = data.pop().unwrap_or(NO_STATUS);
    Ok(Reply {
        data,
        status,
        len: used.len.unwrap_or(0),
    })
}

pub fn expect(reply: &Reply, status: u8, what: &str) -> Verdict {
    demand(reply.status == status, || {
        let found = match reply.status {
            NO_STATUS => "no status was written".into(),
            status => format!("the status is {status}"),
        };
        format!("{what}: {found} in place of {status}")
    })
}

pub fn read(session: &mut Session, sector: u64) -> Result<Vec<u8>, Fault> {
    let reply = request(session, VIRTIO_BLK_T_IN, sector, &[], BLOCK)?;
    expect(&reply, OK, &format!("a read of sector {sector}"))?;
    Ok(reply.data)
}

pub fn write(session: &mut Session, sector: u64, data: &[u8]) -> Verdict {
    let reply = request(session, VIRTIO_BLK_T_OUT, sector, data, 0)?;
    expect(&reply, OK, &format!("a write of sector {sector}"))
}

/// The configuration space up to the limits for zeroes (section 5.2.4).
pub struct Config(Vec<u8>);

impl Config {
    const SIZE: u32 = 60;

    pub fn read(session: &mut Session) -> Result<Self, Fault> {
        let reply = session
            .frontend()
            .request(&GetConfig { size: Self::SIZE })?;
        if reply.0.len() != Self::SIZE as usize {
            return Err(Fault::broken(format!(
                "GET_CONFIG of {} bytes returned {}",
                Self::SIZE,
                reply.0.len()
            )));
        }
        Ok(Self(reply.0))
    }

    pub fn number<const N: usize>(&self, at: usize) -> u64 {
        let bytes = self.0[at..at + N].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub fn capacity(&self) -> u64 {
        self.number::<8>(0)
    }
}

pub fn started(bench: &Bench) -> Result<Session, Fault> {
    Ok(bench.start(&bench.setup())?)
}

pub fn configured(bench: &Bench) -> Result<(Session, Config), Fault> {
    let setup = bench.setup().require_protocol(Protocol::CONFIG);
    let mut session = bench.start(&setup)?;
    let config = Config::read(&mut session)?;
    Ok((session, config))
}

/// A session in which a block may be written, and what was in it.
pub fn writable(bench: &Bench) -> Result<(Session, Vec<u8>), Fault> {
    if bench.profile().has(VIRTIO_BLK_F_RO) {
        return Err(Fault::skip("the device is read-only (VIRTIO_BLK_F_RO)"));
    }
    let mut session = started(bench)?;
    let before = read(&mut session, 0)?;
    Ok((session, before))
}
