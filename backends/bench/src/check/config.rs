//! The configuration space.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{VhostUserConfig, VhostUserConfigFlags};
use vhost_user_wire::frontend::{FrontendMessage, GetConfig, SetConfig};
use vhost_user_wire::payload::{Config, ConfigReply};
use vhost_user_wire::{Header, Payload};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Session, Step};

const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const GET: Source = Source::VhostUser("VHOST_USER_GET_CONFIG");
const SPACE: Source = Source::VhostUser("Virtio device config space");

pub const CHECKS: &[Check] = &[
    Check {
        name: "config.size-matches",
        level: Level::Must,
        source: GET,
        rule: "the back-end's payload size MUST match the front-end's request, or be zero to \
               indicate an error",
        needs: &[CONFIG],
        run: size_matches,
    },
    Check {
        name: "config.offset",
        level: Level::Must,
        source: SPACE,
        rule: "offset is an offset of the virtio device's configuration space: what is read there \
               is what stands there in the whole",
        needs: &[CONFIG],
        run: offset,
    },
    Check {
        name: "config.stable",
        level: Level::Should,
        source: Source::Virtio("2.5 Device Configuration Space"),
        rule: "device configuration space is used for rarely-changing parameters: two reads one \
               after the other return the same",
        needs: &[CONFIG],
        run: stable,
    },
    Check {
        name: "config.before-features",
        level: Level::Must,
        source: Source::Virtio("2.5.2 Device Requirements: Device Configuration Space"),
        rule: "the device MUST allow reading of any device-specific configuration field before \
               FEATURES_OK is set by the driver",
        needs: &[CONFIG],
        run: before_features,
    },
    Check {
        name: "config.behind-the-end",
        level: Level::Must,
        source: GET,
        rule: "a read behind the end of the configuration space is answered: with as many bytes, \
               or none to indicate an error",
        needs: &[CONFIG],
        run: behind_the_end,
    },
    Check {
        name: "config.huge-read",
        level: Level::Should,
        source: GET,
        rule: "a read of 4 GiB is answered by an error, or the connection is closed",
        needs: &[CONFIG],
        run: huge_read,
    },
    Check {
        name: "config.short-write",
        level: Level::Should,
        source: SPACE,
        rule: "the payload has size bytes: SET_CONFIG with fewer is refused",
        needs: &[CONFIG, Need::Protocol(Protocol::REPLY_ACK)],
        run: short_write,
    },
    Check {
        name: "config.write-behind-the-end",
        level: Level::Should,
        source: SPACE,
        rule: "SET_CONFIG behind the end of the configuration space does no harm: the \
               back-end serves on, or hangs up",
        needs: &[CONFIG],
        run: write_behind_the_end,
    },
    Check {
        name: "config.read-only-field",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_CONFIG"),
        rule: "back-ends MUST NOT accept SET_CONFIG for read-only configuration space fields \
               unless the live migration bit is set",
        needs: &[CONFIG],
        run: read_only_field,
    },
];

fn prepared(bench: &Bench) -> Result<Session, Fault> {
    let setup = bench.setup().require_protocol(Protocol::CONFIG);
    Ok(setup.prepare(bench.connect()?)?)
}

/// Bytes that every device of the type has, whatever it offers: fields that do not depend on a
/// feature (virtio 1.4, section 5).
fn least_size(bench: &Bench) -> Result<u32, Fault> {
    match bench.profile().device_type {
        DeviceType::BLK => Ok(8),
        DeviceType::SCSI => Ok(36),
        DeviceType::FS => Ok(40),
        DeviceType::VSOCK => Ok(8),
        DeviceType::SOUND => Ok(12),
        DeviceType::GPIO => Ok(8),
        DeviceType::GPU => Ok(16),
        other => Err(Fault::skip(format!(
            "no field is known that the configuration space of each {other} device has"
        ))),
    }
}

/// Reads anywhere; `None` for an error that the backend reports.
fn read(session: &mut Session, offset: u32, size: u32) -> Result<Option<Vec<u8>>, Fault> {
    let access = VhostUserConfig::new(offset, size, VhostUserConfigFlags::empty());
    let bytes = vec![0; size as usize];
    let payload = Config { access, bytes }.to_bytes();
    let code: u32 = GetConfig::CODE.into();
    let header = Header::request(code, payload.len());
    session.frontend().send_message(header, &payload, &[])?;
    let reply = session.frontend().reply_to(code)?;
    let bytes = reply
        .body::<ConfigReply>()
        .map_err(|error| Fault::broken(format!("the reply is malformed: {error}")))?;
    Ok(Some(bytes.0).filter(|bytes| !bytes.is_empty()))
}

fn whole(session: &mut Session, size: u32) -> Result<Vec<u8>, Fault> {
    let bytes = read(session, 0, size)?;
    bytes.ok_or_else(|| Fault::broken(format!("a read of the first {size} bytes is an error")))
}

fn size_matches(bench: &Bench) -> Verdict {
    let size = least_size(bench)?;
    let mut session = prepared(bench)?;
    for size in [size, size / 2, 1] {
        let found = whole(&mut session, size)?.len();
        demand(found == size as usize, || {
            format!("a read of {size} bytes returned {found}")
        })?;
    }
    Ok(())
}

fn offset(bench: &Bench) -> Verdict {
    let size = least_size(bench)?;
    let mut session = prepared(bench)?;
    let whole = whole(&mut session, size)?;
    for at in [1, size / 2, size - 1] {
        let found = read(&mut session, at, 1)?;
        let expected = whole[at as usize];
        demand(found.as_deref() == Some(&[expected]), || {
            format!("byte {at} is {expected:#04x} in the whole, and {found:02x?} by itself")
        })?;
    }
    // A byte may be right by chance.
    let at = size / 2;
    let found = read(&mut session, at, size - at)?;
    let expected = &whole[at as usize..];
    demand(found.as_deref() == Some(expected), || {
        format!("from {at} on it is {expected:02x?} in the whole, and {found:02x?} by itself")
    })
}

fn stable(bench: &Bench) -> Verdict {
    let size = least_size(bench)?;
    let mut session = prepared(bench)?;
    let (first, second) = (whole(&mut session, size)?, whole(&mut session, size)?);
    demand(first == second, || {
        format!("it is {first:02x?}, then {second:02x?}")
    })
}

fn before_features(bench: &Bench) -> Verdict {
    let size = least_size(bench)?;
    let setup = bench.setup().require_protocol(Protocol::CONFIG);
    let mut session = setup.leave_out(Step::Features).prepare(bench.connect()?)?;
    whole(&mut session, size)?;
    Ok(())
}

fn behind_the_end(bench: &Bench) -> Verdict {
    let mut session = prepared(bench)?;
    let found = read(&mut session, 4000, 64)?;
    let len = found.as_ref().map_or(64, Vec::len);
    demand(len == 64, || format!("a read of 64 bytes returned {len}"))?;
    demand(session.frontend().is_served(), || {
        "it does not answer any more".into()
    })
}

fn huge_read(bench: &Bench) -> Verdict {
    let mut session = prepared(bench)?;
    let access = VhostUserConfig::new(0, u32::MAX, VhostUserConfigFlags::empty());
    let payload = access.to_bytes();
    let header = Header::request(GetConfig::CODE, payload.len());
    let frontend = session.frontend();
    frontend.send_message(header, &payload, &[])?;
    match frontend.receive() {
        Err(error) if error.is_closed() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(reply) => demand(reply.payload.len() <= 12, || {
            format!("the reply has {} bytes", reply.payload.len())
        }),
    }
}

fn short_write(bench: &Bench) -> Verdict {
    let mut session = prepared(bench)?;
    let access = VhostUserConfig::new(0, 64, VhostUserConfigFlags::empty());
    let payload = [access.to_bytes(), vec![0; 4]].concat();
    let code = SetConfig::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}

fn write_behind_the_end(bench: &Bench) -> Verdict {
    let mut session = prepared(bench)?;
    let write = SetConfig {
        offset: 4000,
        data: &[0xff; 64],
    };
    session.frontend().send(&write)?;
    demand(session.frontend().is_there_or_gone(), || "it hangs".into())
}

fn read_only_field(bench: &Bench) -> Verdict {
    // The capacity; target, channel and LUN limits; the tag; the context; streams; lines.
    let (at, size) = match bench.profile().device_type {
        DeviceType::BLK | DeviceType::VSOCK => (0u32, 8u32),
        DeviceType::SOUND => (0, 12),
        DeviceType::FS => (36, 4),
        DeviceType::GPIO => (0, 2),
        other => {
            return Err(Fault::skip(format!(
                "no read-only field is known that each {other} device has"
            )));
        }
    };
    let mut session = prepared(bench)?;
    let before = whole(&mut session, at + size)?;
    let other: Vec<u8> = before[at as usize..].iter().map(|byte| !byte).collect();
    let write = SetConfig {
        offset: at,
        data: &other,
    };
    session.frontend().send(&write)?;
    let after = match whole(&mut session, at + size) {
        // It may have hung up, which accepts nothing.
        Err(Fault::Driver(error)) if error.is_closed() => return Ok(()),
        after => after?,
    };
    demand(after == before, || {
        format!("the field was {before:02x?} and is {after:02x?}")
    })
}
