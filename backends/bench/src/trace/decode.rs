//! Names for what stands in a message.

use vhost_user_wire::payload::NO_FILE;
use vhost_user_wire::{DeviceType, features, name};

use super::record::{Message, Side};
use super::shapes::{Kind, REGION, Shape, shape};
pub use super::value::{Fields, Value};

/// The message's name, as the vhost-user document has it without `VHOST_USER_`.
pub fn message_name(message: &Message) -> String {
    request_name(message.channel, message.request)
}

/// The name of a request on `channel`.
pub fn request_name(channel: Side, request: u32) -> String {
    match channel {
        Side::Frontend => name::frontend(request).to_string(),
        Side::Backend => match name::backend(request) {
            name::Name::Known(name) => format!("BACKEND_{name}"),
            unknown => unknown.to_string(),
        },
    }
}

/// The fields of the payload, as many as have come. What belongs to none is `rest`, unless it is
/// zeros: some frontends send a structure at its full size.
pub fn fields(message: &Message, device_type: Option<DeviceType>) -> Fields {
    // An empty payload is a refusal (GET_CONFIG), or has nothing to tell.
    if message.payload.is_empty() {
        return Fields::default();
    }
    let (fields, rest) = read(shape(message), &message.payload, device_type);
    let mut fields = fields;
    if rest.iter().any(|byte| *byte != 0) {
        fields.push("rest", Value::Bytes(rest.to_vec()));
    }
    fields
}

/// Why the payload is too short for its message, if it is.
pub fn shortage(message: &Message) -> Option<String> {
    let needed = least_size(shape(message));
    let got = message.payload.len();
    let is_refusal = got == 0 && message.is_reply();
    (got < needed && !is_refusal).then(|| format!("{got} of {needed} bytes of payload"))
}

/// Without the padding at its end, which may be left out.
fn least_size(shape: Shape) -> usize {
    let (mut at, mut size) = (0, 0);
    for (_, kind) in shape {
        let len = self::size(*kind);
        at += len;
        if len > 0 && !matches!(kind, Kind::Padding(_)) {
            size = at;
        }
    }
    size
}

/// In bytes; 0 of what may be empty.
fn size(kind: Kind) -> usize {
    match kind {
        Kind::U8 => 1,
        Kind::U16 => 2,
        Kind::U32 | Kind::Hex32 => 4,
        Kind::U64 | Kind::Hex64 | Kind::Features | Kind::ProtocolFeatures => 8,
        Kind::Status | Kind::VringFile => 8,
        Kind::Bytes(len) | Kind::Padding(len) => len,
        Kind::Rest | Kind::Regions | Kind::Sizes => 0,
    }
}

/// The fields of `shape` that are there, and the bytes behind them.
fn read(shape: Shape, mut bytes: &[u8], device_type: Option<DeviceType>) -> (Fields, &[u8]) {
    let mut fields = Fields::default();
    let mut count = 0;
    for (name, kind) in shape {
        let len = match kind {
            Kind::Padding(len) => (*len).min(bytes.len()),
            Kind::Rest | Kind::Sizes => bytes.len(),
            Kind::Regions => bytes.len().min(REGION_SIZE.saturating_mul(count)),
            kind => size(*kind),
        };
        let Some((field, behind)) = bytes.split_at_checked(len) else {
            break;
        };
        bytes = behind;
        if *name == "count" {
            count = number(field) as usize;
        }
        match kind {
            Kind::Padding(_) => {}
            Kind::VringFile => vring_file(name, number(field), &mut fields),
            kind => fields.push(name, value(*kind, field, device_type)),
        }
    }
    (fields, bytes)
}

const REGION_SIZE: usize = 32;

fn value(kind: Kind, bytes: &[u8], device_type: Option<DeviceType>) -> Value {
    let bits = number(bytes);
    match kind {
        Kind::Hex64 | Kind::Hex32 => Value::Hex(bits),
        Kind::Features => {
            let own = device_type.map_or(&[][..], features::own_names);
            Value::Bits(bits, features::names(bits, own))
        }
        Kind::ProtocolFeatures => Value::Bits(bits, features::protocol_names(bits)),
        Kind::Status => Value::Bits(bits, status_names(bits)),
        Kind::Bytes(_) | Kind::Rest => Value::Bytes(bytes.to_vec()),
        Kind::Regions => {
            let regions = bytes.chunks(REGION_SIZE);
            Value::List(regions.map(|region| read(REGION, region, None).0).collect())
        }
        Kind::Sizes => Value::List(sizes(bytes)),
        _ => Value::Number(bits),
    }
}

/// The regions that there are: those whose size is not 0.
fn sizes(bytes: &[u8]) -> Vec<Fields> {
    let regions = bytes.chunks(size_of::<u64>()).map(number).enumerate();
    let real = regions.filter(|(_, size)| *size != 0);
    let fields = real.map(|(id, size)| {
        Fields(vec![
            ("region", Value::Number(id as u64)),
            ("size", Value::Hex(size)),
        ])
    });
    fields.collect()
}

fn vring_file(name: &'static str, bits: u64, fields: &mut Fields) {
    fields.push(name, Value::Number(bits & 0xff));
    let flags = bits & !0xff;
    if flags & NO_FILE != 0 {
        fields.push("file", Value::Text("none".into()));
    }
    if flags & !NO_FILE != 0 {
        fields.push("flags", Value::Hex(flags & !NO_FILE));
    }
}

/// virtio 1.4, section 2.1.
const STATUS: &[(u32, &str)] = &[
    (0, "ACKNOWLEDGE"),
    (1, "DRIVER"),
    (2, "DRIVER_OK"),
    (3, "FEATURES_OK"),
    (6, "DEVICE_NEEDS_RESET"),
    (7, "FAILED"),
];

fn status_names(bits: u64) -> Vec<String> {
    let set = (0..u64::BITS).filter(|bit| bits & (1 << bit) != 0);
    let name = |bit| {
        let known = STATUS.iter().find(|(known, _)| *known == bit);
        known.map_or_else(|| format!("bit {bit}"), |(_, name)| (*name).to_owned())
    };
    set.map(name).collect()
}

/// At most eight bytes as a number of the machine.
fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; size_of::<u64>()];
    let len = bytes.len().min(all.len());
    // Where the machine is big-endian the bytes belong at the other end.
    let place = if cfg!(target_endian = "little") {
        0
    } else {
        all.len() - len
    };
    all[place..place + len].copy_from_slice(&bytes[..len]);
    u64::from_ne_bytes(all)
}

#[cfg(test)]
#[path = "decode_test.rs"]
mod tests;
