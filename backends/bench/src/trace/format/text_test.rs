use super::*;
use vhost::vhost_user::message::FrontendReq as F;

fn record(message: Message) -> Record {
    Record {
        number: 0,
        time: 1_234_567,
        device: "disk".into(),
        device_type: Some(2),
        connection: 1,
        event: Event::Message(message),
    }
}

fn message(code: F, flags: u32, payload: &[u8]) -> Message {
    Message {
        channel: Side::Frontend,
        from: Side::Frontend,
        request: code.into(),
        flags,
        size: payload.len() as u32,
        payload: payload.to_vec(),
        files: Vec::new(),
        latency: None,
    }
}

#[test]
fn a_request_and_its_reply_are_a_line_each() {
    let mut kick = message(F::SET_VRING_KICK, 9, &3u64.to_ne_bytes());
    kick.files = vec![Descriptor {
        number: 7,
        kind: "eventfd".into(),
    }];
    assert_eq!(
        line(&record(kick)),
        "    0.001235 disk#1 -> SET_VRING_KICK index=3 [7 eventfd] NEED_REPLY"
    );
    let mut reply = message(F::GET_FEATURES, 5, &(1u64 << 9).to_ne_bytes());
    reply.from = Side::Backend;
    reply.latency = Some(265_400);
    assert_eq!(
        line(&record(reply)),
        "    0.001235 disk#1 <- GET_FEATURES reply after 265 µs features=0x200 (BLK_FLUSH)"
    );
}

#[test]
fn what_is_wrong_with_a_message_is_said() {
    let cut = message(F::SET_VRING_NUM, 0x12, &[1]);
    assert_eq!(
        line(&record(cut)),
        "    0.001235 disk#1 -> SET_VRING_NUM rest=01 (flags 0x12) (malformed: 1 of 8 bytes of payload)"
    );
}
