use vhost::vhost_user::message::{BackendReq as B, FrontendReq as F};

use super::*;

fn message(channel: Side, request: impl Into<u32>, flags: u32, payload: &[u8]) -> Message {
    Message {
        channel,
        from: channel,
        request: request.into(),
        flags,
        size: payload.len() as u32,
        payload: payload.to_vec(),
        files: Vec::new(),
        latency: None,
    }
}

fn request(code: F, words: &[u64]) -> Message {
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    message(Side::Frontend, code, 1, &payload)
}

fn text(message: &Message) -> String {
    let fields = fields(message, Some(DeviceType::BLK));
    format!("{} {fields}", message_name(message))
}

#[test]
fn features_have_the_names_of_their_kind() {
    assert_eq!(
        text(&request(F::SET_FEATURES, &[1 << 32 | 1 << 9 | 1 << 60])),
        "SET_FEATURES features=0x1000000100000200 (BLK_FLUSH|VERSION_1|bit 60)"
    );
    assert_eq!(
        text(&request(F::SET_PROTOCOL_FEATURES, &[1 << 9])),
        "SET_PROTOCOL_FEATURES features=0x200 (CONFIG)"
    );
    assert_eq!(
        text(&request(F::SET_STATUS, &[0x4f])),
        "SET_STATUS status=0x4f (ACKNOWLEDGE|DRIVER|DRIVER_OK|FEATURES_OK|DEVICE_NEEDS_RESET)"
    );
}

#[test]
fn regions_are_as_many_as_the_table_says() {
    let table = request(F::SET_MEM_TABLE, &[1, 0x1000, 0x2000, 0x3000, 0x4000, 0, 0]);
    assert_eq!(
        text(&table),
        "SET_MEM_TABLE count=1 regions=[{guest=0x1000 size=0x2000 user=0x3000 offset=0x4000}]"
    );
    // A count that cannot be is no reason to read beyond the end.
    let table = request(F::SET_MEM_TABLE, &[u32::MAX.into(), 7]);
    assert_eq!(
        text(&table),
        "SET_MEM_TABLE count=4294967295 regions=[{guest=0x7}]"
    );
}

#[test]
fn a_ring_s_number_and_the_lack_of_a_file_are_told_apart() {
    assert_eq!(
        text(&request(F::SET_VRING_KICK, &[3])),
        "SET_VRING_KICK index=3"
    );
    assert_eq!(
        text(&request(F::SET_VRING_CALL, &[0x1102])),
        "SET_VRING_CALL index=2 file=none flags=0x1000"
    );
}

#[test]
fn payloads_that_are_cut_or_too_long_are_shown_as_far_as_they_go() {
    let short = message(Side::Frontend, F::SET_VRING_NUM, 1, &[1, 0, 0, 0, 9]);
    assert_eq!(text(&short), "SET_VRING_NUM index=1 rest=09");
    assert_eq!(shortage(&short).unwrap(), "5 of 8 bytes of payload");
    let padded = request(F::SET_VRING_NUM, &[1, 0, 0]);
    assert_eq!(text(&padded), "SET_VRING_NUM index=1 num=0");
    assert_eq!(shortage(&padded), None);
}

#[test]
fn requests_of_the_backend_have_names_of_their_own() {
    let config = message(Side::Backend, B::CONFIG_CHANGE_MSG, 1, &[]);
    assert_eq!(text(&config), "BACKEND_CONFIG_CHANGE_MSG ");
    let unknown = message(Side::Backend, 99u32, 1, &[0xab, 0]);
    assert_eq!(text(&unknown), "unknown request 99 payload=ab00");
}

#[test]
fn replies_without_a_shape_are_acknowledgements() {
    let mut reply = request(F::SET_VRING_NUM, &[1]);
    reply.flags = 5;
    assert_eq!(text(&reply), "SET_VRING_NUM result=1");
    let refusal = message(Side::Frontend, F::GET_CONFIG, 5, &[]);
    assert_eq!(text(&refusal), "GET_CONFIG ");
    assert_eq!(shortage(&refusal), None);
}

/// Whatever the bytes, they are shown.
#[test]
fn no_payload_makes_it_panic() {
    for channel in [Side::Frontend, Side::Backend] {
        for request in 0..50u32 {
            for len in [0, 1, 7, 8, 9, 40, 300] {
                for flags in [1, 5] {
                    let message = message(channel, request, flags, &vec![0xff; len]);
                    let _ = (text(&message), shortage(&message));
                }
            }
        }
    }
}
