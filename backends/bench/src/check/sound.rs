//! Sound cards (virtio 1.4, section 5.14).

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{configured, exchange, number, started, words};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::Session;

const SOUND: Need = Need::Type(DeviceType::SOUND);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const OPERATION: Source = Source::Virtio("5.14.6 Device Operation");
const LIFECYCLE: Source = Source::Virtio("5.14.6.6.1 PCM Command Lifecycle");

pub const CHECKS: &[Check] = &[
    Check {
        name: "sound.jack-info",
        level: Level::Must,
        source: Source::Virtio("5.14.6.4.1 VIRTIO_SND_R_JACK_INFO, Device Requirements"),
        rule: "the device MUST NOT set undefined feature values, and MUST initialize the padding \
               bytes to 0",
        needs: &[SOUND, CONFIG],
        run: jack_info,
    },
    Check {
        name: "sound.stream-info",
        level: Level::Must,
        source: Source::Virtio("5.14.6.6.2 VIRTIO_SND_R_PCM_INFO, Device Requirements"),
        rule: "the device MUST NOT set undefined feature, format, rate and direction values, and \
               MUST initialize the padding bytes to 0",
        needs: &[SOUND, CONFIG],
        run: stream_info,
    },
    Check {
        name: "sound.stream-is-usable",
        level: Level::Should,
        source: Source::Virtio("5.14.6.6.2 VIRTIO_SND_R_PCM_INFO"),
        rule: "a stream has a format, a rate, and a minimum number of channels that is not \
               greater than the maximum",
        needs: &[SOUND, CONFIG],
        run: stream_is_usable,
    },
    Check {
        name: "sound.info-out-of-range",
        level: Level::Should,
        source: OPERATION,
        rule: "VIRTIO_SND_S_BAD_MSG: a control message contains invalid parameters, here one \
               stream more than there is",
        needs: &[SOUND, CONFIG],
        run: info_out_of_range,
    },
    Check {
        name: "sound.bad-stream",
        level: Level::Should,
        source: OPERATION,
        rule: "VIRTIO_SND_S_BAD_MSG: a control message contains invalid parameters, here a stream \
               that there is not",
        needs: &[SOUND, CONFIG],
        run: bad_stream,
    },
    Check {
        name: "sound.unknown-request",
        level: Level::Should,
        source: OPERATION,
        rule: "VIRTIO_SND_S_NOT_SUPP: the requested operation is not supported (or \
               VIRTIO_SND_S_BAD_MSG): for a code that nobody has defined",
        needs: &[SOUND],
        run: unknown_request,
    },
    Check {
        name: "sound.short-request",
        level: Level::Should,
        source: OPERATION,
        rule: "VIRTIO_SND_S_BAD_MSG: a control message is malformed, here one without a stream",
        needs: &[SOUND, CONFIG],
        run: short_request,
    },
    Check {
        name: "sound.too-many-channels",
        level: Level::Should,
        source: OPERATION,
        rule: "VIRTIO_SND_S_NOT_SUPP: requested parameters are not supported (or \
               VIRTIO_SND_S_BAD_MSG): more channels than channels_max",
        needs: &[SOUND, CONFIG],
        run: too_many_channels,
    },
    Check {
        name: "sound.lifecycle",
        level: Level::Should,
        source: LIFECYCLE,
        rule: "set parameters, prepare, start, stop and release, one after another, succeed",
        needs: &[SOUND, CONFIG],
        run: lifecycle,
    },
    Check {
        name: "sound.start-comes-after-prepare",
        level: Level::Should,
        source: LIFECYCLE,
        rule: "valid transitions from SET PARAMETERS: set parameters and prepare; start fails",
        needs: &[SOUND, CONFIG],
        run: wrong_order,
    },
];

const JACK_INFO: u32 = 1;
const PCM_INFO: u32 = 0x100;
const SET_PARAMS: u32 = 0x101;
const PREPARE: u32 = 0x102;
const RELEASE: u32 = 0x103;
const START: u32 = 0x104;
const STOP: u32 = 0x105;

const OK: u32 = 0x8000;
const BAD_MSG: u32 = 0x8001;
const NOT_SUPP: u32 = 0x8002;

const CONTROL: usize = 0;

/// Bytes of struct virtio_snd_jack_info and virtio_snd_pcm_info.
const JACK: usize = 24;
const STREAM: usize = 32;

/// How many of each there are, as the configuration space says.
struct Counts {
    jacks: u32,
    streams: u32,
}

fn start(bench: &Bench) -> Result<(Session, Counts), Fault> {
    let (session, config) = configured(bench, 12)?;
    let jacks = config.number::<4>(0) as u32;
    let streams = config.number::<4>(4) as u32;
    Ok((session, Counts { jacks, streams }))
}

/// The status of a request that is answered by nothing else.
fn status(session: &mut Session, request: &[u8]) -> Result<u32, Fault> {
    Ok(exchange(session, CONTROL, request, 4)?.u32(0))
}

fn is_one_of(status: u32, wanted: &[u32], what: &str) -> Verdict {
    demand(wanted.contains(&status), || {
        format!("{what}: the status is {status:#x} in place of {wanted:x?}")
    })
}

/// Information about `count` items from the first, each in `size` bytes.
fn info(session: &mut Session, code: u32, count: u32, size: usize) -> Result<Vec<Vec<u8>>, Fault> {
    let request = words(&[code, 0, count, size as u32]);
    let answer = exchange(session, CONTROL, &request, 4 + count * size as u32)?;
    is_one_of(answer.u32(0), &[OK], &format!("request {code:#x}"))?;
    Ok(answer.bytes[4..].chunks(size).map(<[u8]>::to_vec).collect())
}

fn streams(bench: &Bench) -> Result<(Session, Vec<Vec<u8>>), Fault> {
    let (mut session, counts) = start(bench)?;
    if counts.streams == 0 {
        return Err(Fault::skip("the device has no stream"));
    }
    let streams = info(&mut session, PCM_INFO, counts.streams, STREAM)?;
    Ok((session, streams))
}

/// Nothing is set but the lowest `count` bits.
fn is_defined(n: usize, name: &str, found: u64, count: u32) -> Verdict {
    demand(found >> count == 0, || {
        format!("{name} of item {n} is {found:#x}, and {count} bits are defined")
    })
}

fn is_padding(n: usize, bytes: &[u8]) -> Verdict {
    demand(bytes.iter().all(|byte| *byte == 0), || {
        format!("the padding of item {n} is {bytes:02x?}")
    })
}

fn jack_info(bench: &Bench) -> Verdict {
    let (mut session, counts) = start(bench)?;
    if counts.jacks == 0 {
        return Err(Fault::skip("the device has no jack"));
    }
    let jacks = info(&mut session, JACK_INFO, counts.jacks, JACK)?;
    for (n, jack) in jacks.iter().enumerate() {
        is_defined(n, "features", number::<4>(jack, 4), 1)?;
        is_padding(n, &jack[17..])?;
    }
    Ok(())
}

fn stream_info(bench: &Bench) -> Verdict {
    let (_, streams) = streams(bench)?;
    for (n, stream) in streams.iter().enumerate() {
        is_defined(n, "features", number::<4>(stream, 4), 5)?;
        is_defined(n, "formats", number::<8>(stream, 8), 25)?;
        is_defined(n, "rates", number::<8>(stream, 16), 16)?;
        is_defined(n, "direction", number::<1>(stream, 24), 1)?;
        is_padding(n, &stream[27..])?;
    }
    Ok(())
}

fn stream_is_usable(bench: &Bench) -> Verdict {
    let (_, streams) = streams(bench)?;
    for (n, stream) in streams.iter().enumerate() {
        let (least, most) = (stream[25], stream[26]);
        let has_any = number::<8>(stream, 8) != 0 && number::<8>(stream, 16) != 0;
        demand(has_any && most > 0 && least <= most, || {
            format!("stream {n} is described by {stream:02x?}")
        })?;
    }
    Ok(())
}

fn info_out_of_range(bench: &Bench) -> Verdict {
    let (mut session, counts) = start(bench)?;
    let count = counts.streams + 1;
    let request = words(&[PCM_INFO, 0, count, STREAM as u32]);
    let answer = exchange(&mut session, CONTROL, &request, 4 + count * STREAM as u32)?;
    is_one_of(answer.u32(0), &[BAD_MSG], &format!("{count} streams"))
}

fn bad_stream(bench: &Bench) -> Verdict {
    let (mut session, counts) = start(bench)?;
    for code in [PREPARE, START, STOP, RELEASE] {
        let status = status(&mut session, &words(&[code, counts.streams]))?;
        is_one_of(status, &[BAD_MSG], &format!("request {code:#x}"))?;
    }
    Ok(())
}

fn unknown_request(bench: &Bench) -> Verdict {
    let status = status(&mut started(bench)?, &words(&[0x7ff0, 0]))?;
    is_one_of(status, &[NOT_SUPP, BAD_MSG], "request 0x7ff0")
}

fn short_request(bench: &Bench) -> Verdict {
    let (mut session, _) = start(bench)?;
    let status = status(&mut session, &words(&[PREPARE]))?;
    is_one_of(status, &[BAD_MSG], "a request of 4 bytes")
}

/// VIRTIO_SND_R_PCM_SET_PARAMS of stream 0: the lowest format and rate that it has.
fn parameters(stream: &[u8], channels: u8) -> Vec<u8> {
    let lowest = |at| number::<8>(stream, at).trailing_zeros() as u8;
    let mut bytes = words(&[SET_PARAMS, 0, 0x4000, 0x1000, 0]);
    bytes.extend([channels, lowest(8), lowest(16), 0]);
    bytes
}

fn too_many_channels(bench: &Bench) -> Verdict {
    let (mut session, streams) = streams(bench)?;
    let Some(channels) = streams[0][26].checked_add(1) else {
        return Err(Fault::skip("the stream has 255 channels"));
    };
    let status = status(&mut session, &parameters(&streams[0], channels))?;
    is_one_of(
        status,
        &[NOT_SUPP, BAD_MSG],
        &format!("{channels} channels"),
    )
}

fn lifecycle(bench: &Bench) -> Verdict {
    let (mut session, streams) = streams(bench)?;
    let set = status(&mut session, &parameters(&streams[0], streams[0][25]))?;
    is_one_of(set, &[OK], "request 0x101")?;
    for code in [PREPARE, START, STOP, RELEASE] {
        let status = status(&mut session, &words(&[code, 0]))?;
        is_one_of(status, &[OK], &format!("request {code:#x}"))?;
    }
    Ok(())
}

fn wrong_order(bench: &Bench) -> Verdict {
    let (mut session, streams) = streams(bench)?;
    let set = status(&mut session, &parameters(&streams[0], streams[0][25]))?;
    is_one_of(set, &[OK], "request 0x101")?;
    let started = status(&mut session, &words(&[START, 0]))?;
    status(&mut session, &words(&[RELEASE, 0]))?;
    demand(started != OK, || {
        "a stream that has its parameters and is not prepared was started".into()
    })
}
