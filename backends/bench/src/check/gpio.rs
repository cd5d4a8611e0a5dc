//! GPIO controllers (virtio 1.4, section 5.18).
//!
//! Line 0 is driven, and deactivated afterwards.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{Answer, UNWRITTEN, configured, exchange, started};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, Session};

const GPIO: Need = Need::Type(DeviceType::GPIO);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const IRQ: Need = Need::Feature(F_IRQ, "VIRTIO_GPIO_F_IRQ");
const REQUESTS: Source = Source::Virtio("5.18.6.9 Device Requirements: requestq Operation");
const FLOW: Source = Source::Virtio("5.18.6.7 requestq Operation: Message Flow");

const F_IRQ: u32 = 0;

pub const CHECKS: &[Check] = &[
    Check {
        name: "gpio.lines",
        level: Level::Should,
        source: Source::Virtio("5.18.4 Device configuration layout"),
        rule: "ngpio is the total number of GPIO lines supported by the device: one at least",
        needs: &[GPIO, CONFIG],
        run: lines,
    },
    Check {
        name: "gpio.line-names",
        level: Level::Must,
        source: REQUESTS,
        rule: "gpio_names_size is the size of the gpio-names memory block, and the strings MUST \
               be zero-terminated and unique: there is one for each line, in 7-bit ASCII",
        needs: &[GPIO, CONFIG],
        run: line_names,
    },
    Check {
        name: "gpio.response-is-whole",
        level: Level::Must,
        source: REQUESTS,
        rule: "the device MUST set all the fields of the struct virtio_gpio_response before \
               sending it back to the driver",
        needs: &[GPIO],
        run: response_is_whole,
    },
    Check {
        name: "gpio.direction",
        level: Level::Should,
        source: Source::Virtio("5.18.6.2 requestq Operation: Get Direction"),
        rule: "the driver requests the device to return a line's configured direction: what was \
               set last",
        needs: &[GPIO],
        run: direction,
    },
    Check {
        name: "gpio.output-value",
        level: Level::Should,
        source: Source::Virtio("5.18.6.5 requestq Operation: Set Value"),
        rule: "the line may get configured to output later, at which point this output value must \
               be used by the device for the line",
        needs: &[GPIO],
        run: output_value,
    },
    Check {
        name: "gpio.bad-line",
        level: Level::Should,
        source: FLOW,
        rule: "the status must be set to VIRTIO_GPIO_STATUS_ERR on failure: for a line that there \
               is not",
        needs: &[GPIO, CONFIG],
        run: bad_line,
    },
    Check {
        name: "gpio.bad-direction",
        level: Level::Should,
        source: FLOW,
        rule: "the status must be set to VIRTIO_GPIO_STATUS_ERR on failure: for direction 3",
        needs: &[GPIO],
        run: |bench| refused(bench, request(SET_DIRECTION, 0, 3), "direction 3"),
    },
    Check {
        name: "gpio.unknown-message",
        level: Level::Should,
        source: FLOW,
        rule: "the status must be set to VIRTIO_GPIO_STATUS_ERR on failure: for a message of a \
               type that nobody has defined",
        needs: &[GPIO],
        run: |bench| refused(bench, request(0x7ff0, 0, 0), "a message of type 0x7ff0"),
    },
    Check {
        name: "gpio.order",
        level: Level::Must,
        source: REQUESTS,
        rule: "the device MUST process multiple messages, for the same GPIO line, sequentially \
               and respond to them in the order they were received on the virtqueue",
        needs: &[GPIO],
        run: order,
    },
    Check {
        name: "gpio.disabled-interrupt",
        level: Level::Must,
        source: Source::Virtio("5.18.7.3 Device Requirements: eventq Operation"),
        rule: "on receiving VIRTIO_GPIO_MSG_SET_IRQ_TYPE with VIRTIO_GPIO_IRQ_TYPE_NONE, the \
               device MUST return the buffers, if they were received earlier, after setting \
               status to VIRTIO_GPIO_IRQ_STATUS_INVALID",
        needs: &[GPIO, IRQ, Need::Queues(2)],
        run: disabled_interrupt,
    },
];

const GET_LINE_NAMES: u16 = 1;
const GET_DIRECTION: u16 = 2;
const SET_DIRECTION: u16 = 3;
const GET_VALUE: u16 = 4;
const SET_VALUE: u16 = 5;
const SET_IRQ_TYPE: u16 = 6;

const NONE: u32 = 0;
const OUT: u32 = 1;
const IN: u32 = 2;
const RISING: u32 = 1;

const OK: u8 = 0;
const ERR: u8 = 1;

const REQUESTQ: usize = 0;
const EVENTQ: usize = 1;

fn request(kind: u16, line: u16, value: u32) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(line.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}

fn ask(session: &mut Session, kind: u16, line: u16, value: u32) -> Result<Answer, Fault> {
    exchange(session, REQUESTQ, &request(kind, line, value), 2)
}

/// The value of an answer whose status has to be good.
fn done(session: &mut Session, kind: u16, value: u32) -> Result<u32, Fault> {
    let answer = ask(session, kind, 0, value)?;
    demand(answer.bytes[0] == OK, || {
        format!(
            "message {kind} with value {value} for line 0: the status is {}",
            answer.bytes[0]
        )
    })?;
    Ok(answer.bytes[1].into())
}

fn lines(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 8)?;
    demand(config.number::<2>(0) > 0, || "ngpio is 0".into())
}

fn line_names(bench: &Bench) -> Verdict {
    let (mut session, config) = configured(bench, 8)?;
    let (lines, size) = (config.number::<2>(0) as usize, config.number::<4>(4) as u32);
    if size == 0 {
        return Err(Fault::skip("gpio_names_size is 0: the lines have no names"));
    }
    let asked = request(GET_LINE_NAMES, 0, 0);
    let answer = exchange(&mut session, REQUESTQ, &asked, 1 + size)?;
    demand(answer.bytes[0] == OK, || {
        format!("the status is {}", answer.bytes[0])
    })?;
    let names = &answer.bytes[1..];
    demand(names.last() == Some(&0), || {
        "the last string is not zero-terminated".into()
    })?;
    demand(names.is_ascii(), || "the names are not in ASCII".into())?;
    let names: Vec<_> = names[..names.len() - 1].split(|byte| *byte == 0).collect();
    demand(names.len() == lines, || {
        format!("there are {} strings for {lines} lines", names.len())
    })?;
    let mut named: Vec<_> = names.iter().filter(|name| !name.is_empty()).collect();
    named.sort_unstable();
    demand(named.windows(2).all(|pair| pair[0] != pair[1]), || {
        "two lines have the same name".into()
    })
}

fn response_is_whole(bench: &Bench) -> Verdict {
    let answer = ask(&mut started(bench)?, GET_DIRECTION, 0, 0)?;
    demand(!answer.bytes.contains(&UNWRITTEN), || {
        format!(
            "the response is {:02x?}, which held {UNWRITTEN:02x} in each byte",
            answer.bytes
        )
    })?;
    demand(answer.len == 2, || {
        format!("the used length is {}", answer.len)
    })
}

fn direction(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    // Section 5.18.6.3 advises it before a line becomes an output.
    done(&mut session, SET_VALUE, 0)?;
    for wanted in [OUT, IN, NONE] {
        done(&mut session, SET_DIRECTION, wanted)?;
        let found = done(&mut session, GET_DIRECTION, 0)?;
        demand(found == wanted, || {
            format!("the direction is {found} after it was set to {wanted}")
        })?;
    }
    Ok(())
}

fn output_value(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    for wanted in [1, 0] {
        done(&mut session, SET_VALUE, wanted)?;
        done(&mut session, SET_DIRECTION, OUT)?;
        let found = done(&mut session, GET_VALUE, 0)?;
        done(&mut session, SET_DIRECTION, NONE)?;
        demand(found == wanted, || {
            format!("the value is {found} after it was set to {wanted}")
        })?;
    }
    Ok(())
}

fn bad_line(bench: &Bench) -> Verdict {
    let (mut session, config) = configured(bench, 8)?;
    let lines = config.number::<2>(0) as u16;
    for kind in [GET_DIRECTION, SET_DIRECTION, GET_VALUE] {
        let answer = ask(&mut session, kind, lines, 0)?;
        is_error(&answer, &format!("message {kind} for line {lines}"))?;
    }
    Ok(())
}

fn is_error(answer: &Answer, what: &str) -> Verdict {
    demand(answer.bytes[0] == ERR, || {
        format!("{what}: the status is {}", answer.bytes[0])
    })
}

fn refused(bench: &Bench, request: Vec<u8>, what: &str) -> Verdict {
    let mut session = started(bench)?;
    let answer = exchange(&mut session, REQUESTQ, &request, 2)?;
    is_error(&answer, what)?;
    // The next message is served.
    done(&mut session, GET_DIRECTION, 0)?;
    Ok(())
}

/// Messages whose responses depend on those before them, and which leave the line deactivated.
/// The value comes before the direction, as in [`direction`].
const DEPENDENT: [(u16, u32); 10] = [
    (SET_DIRECTION, IN),
    (GET_DIRECTION, 0),
    (SET_VALUE, 1),
    (SET_DIRECTION, OUT),
    (GET_DIRECTION, 0),
    (GET_VALUE, 0),
    (SET_DIRECTION, IN),
    (GET_DIRECTION, 0),
    (SET_DIRECTION, NONE),
    (GET_DIRECTION, 0),
];

/// What a device refuses, or answers otherwise than it should, is not this check's concern: the
/// responses to messages that come at a time are those to the same messages one by one.
fn order(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    let mut expected = Vec::new();
    for (kind, value) in DEPENDENT {
        expected.push(ask(&mut session, kind, 0, value)?.bytes);
    }
    let mut waiting = Vec::new();
    for (kind, value) in DEPENDENT {
        let buffers = Buffers::place(session.memory(), &request(kind, 0, value), 2)?;
        buffers.refill(session.memory(), UNWRITTEN)?;
        let id = session.queue_mut(REQUESTQ).add(buffers.chain())?;
        waiting.push((id, buffers));
    }
    session.queue(REQUESTQ).kick();
    for (n, ((id, buffers), expected)) in waiting.into_iter().zip(expected).enumerate() {
        let used = session.queue_mut(REQUESTQ).wait_used()?;
        demand(used.id == id, || {
            format!("response {n} is to another message")
        })?;
        let bytes = buffers.finish(session.memory())?;
        demand(bytes == expected, || {
            format!("response {n} is {bytes:02x?}, and {expected:02x?} where it came by itself")
        })?;
    }
    Ok(())
}

fn disabled_interrupt(bench: &Bench) -> Verdict {
    let setup = bench.setup().queues(2, 64).require(&[F_IRQ]);
    let mut session = bench.start(&setup)?;
    done(&mut session, SET_DIRECTION, IN)?;
    if ask(&mut session, SET_IRQ_TYPE, 0, RISING)?.bytes[0] != OK {
        return Err(Fault::skip("line 0 has no interrupt for rising edges"));
    }
    let buffers = Buffers::place(session.memory(), &[0, 0], 1)?;
    buffers.refill(session.memory(), UNWRITTEN)?;
    session.queue_mut(EVENTQ).submit(buffers.chain())?;
    done(&mut session, SET_IRQ_TYPE, NONE)?;
    session.queue_mut(EVENTQ).wait_used()?;
    let status = buffers.finish(session.memory())?[0];
    done(&mut session, SET_DIRECTION, NONE)?;
    demand(status == 0, || {
        format!("the status is {status}, and VIRTIO_GPIO_IRQ_STATUS_INVALID is 0")
    })
}
