//! pcapng (draft-ietf-opsawg-pcapng), so that Wireshark shows a trace: an interface a device, a
//! packet a record. The link type is USER0, which everybody may give a meaning of their own.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::time::Duration;

use super::packet::Packet;
use super::writer::Writer;
use crate::trace::record::{Record, Side, Start};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_USER0: u16 = 147;

// Options.
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// if_tsresol: 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// epb_flags: the packet came in, or went out. In is what the frontend gets.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

pub struct Pcapng {
    out: Box<dyn Write + Send>,
    start: Start,
    /// Devices by the number of their interface.
    interfaces: Vec<String>,
}

impl Pcapng {
    pub fn begin(out: Box<dyn Write + Send>, start: Start) -> io::Result<Self> {
        let mut file = Self {
            out: Box::new(io::BufWriter::new(out)),
            start,
            interfaces: Vec::new(),
        };
        let mut body = BYTE_ORDER.to_le_bytes().to_vec();
        // Version 1.0, and a section of unknown length.
        body.extend([1, 0, 0, 0]);
        body.extend([0xff; 8]);
        option(&mut body, SHB_USERAPPL, b"outboard trace");
        end_options(&mut body);
        file.block(SECTION, &body)?;
        Ok(file)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let len = (body.len() + 12) as u32;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(&len.to_le_bytes())
    }

    /// The interface of a device, which is defined before its first packet.
    fn interface(&mut self, device: &str) -> io::Result<u32> {
        if let Some(place) = self.interfaces.iter().position(|known| known == device) {
            return Ok(place as u32);
        }
        let mut body = LINKTYPE_USER0.to_le_bytes().to_vec();
        // Reserved, and no limit to the length of packets.
        body.extend([0; 6]);
        option(&mut body, IF_NAME, device.as_bytes());
        option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
        end_options(&mut body);
        self.block(INTERFACE, &body)?;
        self.interfaces.push(device.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }
}

impl Writer for Pcapng {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        let interface = self.interface(&record.device)?;
        let packet = Packet {
            connection: record.connection,
            device_type: record.device_type,
            event: record.event.clone(),
        };
        let data = packet.to_bytes();
        let time = self.start.since_epoch() + Duration::from_nanos(record.time);
        // Enough until the year 2554.
        let time = time.as_nanos() as u64;
        let len = data.len() as u32;
        let words = [interface, (time >> 32) as u32, time as u32, len, len];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(&data);
        pad(&mut body);
        if let Some(from) = packet.from() {
            let flags = if from == Side::Backend {
                INBOUND
            } else {
                OUTBOUND
            };
            option(&mut body, EPB_FLAGS, &flags.to_le_bytes());
            end_options(&mut body);
        }
        self.block(ENHANCED_PACKET, &body)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(u16::MAX.into())];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// Blocks and options begin at multiples of 32 bits.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Reads what [`Pcapng`] wrote. A block without an end is that of a process that was killed.
pub fn read(mut file: impl Read) -> io::Result<(Start, Vec<Record>)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut blocks = blocks(&bytes);
    if !matches!(blocks.next(), Some((SECTION, _))) {
        return Err(foreign("it does not begin as a little-endian pcapng file"));
    }
    let mut devices = Vec::new();
    let mut packets = Vec::new();
    for (kind, body) in blocks {
        match kind {
            INTERFACE => devices.push(interface_name(body)?),
            ENHANCED_PACKET => packets.push(packet(body, &devices)?),
            _ => {}
        }
    }
    let first = packets.first().map_or(0, |(time, ..)| *time);
    let number = |(number, (time, device, packet)): (usize, (u64, String, Packet))| Record {
        number: number as u64,
        time: time.saturating_sub(first),
        device,
        device_type: packet.device_type,
        connection: packet.connection,
        event: packet.event,
    };
    let records = packets.into_iter().enumerate().map(number).collect();
    Ok((Start::at(Duration::from_nanos(first)), records))
}

fn foreign(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why.to_owned())
}

/// Kind and body of each whole block.
fn blocks(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let kind = word(rest, 0)?;
        let len = word(rest, 4)? as usize;
        let (block, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some((kind, block.get(8..len.checked_sub(4)?)?))
    })
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    let bytes = bytes.get(place..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn interface_name(body: &[u8]) -> io::Result<String> {
    let linktype = word(body, 0).ok_or_else(|| foreign("an interface is cut short"))? as u16;
    if linktype != LINKTYPE_USER0 {
        return Err(foreign("its packets are not those of `outboard trace`"));
    }
    let mut options = body.get(8..).unwrap_or_default();
    while let Some(head) = word(options, 0) {
        let (code, len) = (head as u16, (head >> 16) as usize);
        let Some(value) = options.get(4..4 + len) else {
            break;
        };
        if code == IF_NAME {
            return Ok(String::from_utf8_lossy(value).into_owned());
        }
        options = options
            .get(4 + len.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok("device".to_owned())
}

fn packet(body: &[u8], devices: &[String]) -> io::Result<(u64, String, Packet)> {
    let parse = || {
        let interface = word(body, 0)? as usize;
        let time = u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?);
        let len = word(body, 12)? as usize;
        let data = body.get(20..)?.get(..len)?;
        let packet = Packet::parse(data)?;
        Some((time, devices.get(interface)?.clone(), packet))
    };
    parse().ok_or_else(|| foreign("a packet is not one of `outboard trace`"))
}
