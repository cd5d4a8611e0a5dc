use std::io::Write;
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use vhost::vhost_user::message::{VhostUserMemory, VhostUserU64};

use super::*;
use crate::testing::{memfd, open_fds};

fn pair() -> (Channel, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let channel = Channel::new(near).unwrap();
    // A test that waits for a timeout should not wait for long.
    channel
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    (channel, far)
}

fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [code, flags, payload.len() as u32] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn a_request_comes_through_with_its_descriptors() {
    let (mut channel, far) = pair();
    let bytes = message(12, 0x9, &5u64.to_ne_bytes());
    let file = memfd(1234);
    far.send_with_fds(&[&bytes[..]], &[file.as_raw_fd()])
        .unwrap();
    let mut request = channel.receive().unwrap().unwrap();
    assert_eq!(request.kind(), Some(FrontendReq::SET_VRING_KICK));
    assert!(request.needs_reply() && !request.is_reply());
    assert_eq!(request.body::<VhostUserU64>().unwrap().value, 5);
    let file = request.take_file().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1234);
    assert_eq!(
        request.take_file().unwrap_err(),
        PayloadError::Fds { got: 0, want: 1 }
    );
}

#[test]
fn the_end_between_messages_is_no_error() {
    let (mut channel, mut far) = pair();
    far.write_all(&message(1, 1, &[])).unwrap();
    drop(far);
    assert!(channel.receive().unwrap().is_some());
    assert!(channel.receive().unwrap().is_none());
}

#[test]
fn the_end_within_a_message_is_one() {
    let whole = message(2, 1, &7u64.to_ne_bytes());
    for cut in 1..whole.len() {
        let (mut channel, mut far) = pair();
        far.write_all(&whole[..cut]).unwrap();
        drop(far);
        let error = channel.receive().unwrap_err();
        let (part, got, want) = if cut < HEADER_SIZE {
            ("header", cut, HEADER_SIZE)
        } else {
            ("payload", cut - HEADER_SIZE, 8)
        };
        match error {
            WireError::Truncated {
                part: p,
                got: g,
                want: w,
            } => assert_eq!((p, g, w), (part, got, want)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_peer_that_falls_silent_within_a_message_is_given_up() {
    let (mut channel, mut far) = pair();
    far.write_all(&message(2, 1, &7u64.to_ne_bytes())[..15])
        .unwrap();
    assert!(matches!(
        channel.receive(),
        Err(WireError::Truncated {
            part: "payload",
            got: 3,
            want: 8
        })
    ));
}

#[test]
fn other_versions_and_oversized_payloads_end_the_connection() {
    let (mut channel, mut far) = pair();
    far.write_all(&message(1, 2, &[])).unwrap();
    assert!(matches!(channel.receive(), Err(WireError::Version(2))));

    let (mut channel, mut far) = pair();
    let mut header = message(1, 1, &[]);
    header[8..].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_ne_bytes());
    far.write_all(&header).unwrap();
    assert!(matches!(
        channel.receive(),
        Err(WireError::Oversized { size: 4109 })
    ));
}

#[test]
fn an_unknown_request_keeps_the_stream_in_step() {
    let (mut channel, mut far) = pair();
    far.write_all(&message(9999, 1, &[1; 100])).unwrap();
    far.write_all(&message(1, 1, &[])).unwrap();
    let unknown = channel.receive().unwrap().unwrap();
    assert_eq!((unknown.kind(), unknown.code), (None, 9999));
    let next = channel.receive().unwrap().unwrap();
    assert_eq!(next.kind(), Some(FrontendReq::GET_FEATURES));
}

#[test]
fn a_flood_of_descriptors_is_counted_and_closed() {
    let (mut channel, far) = pair();
    let file = memfd(1);
    let before = open_fds();
    let fds = [file.as_raw_fd(); 253];
    far.send_with_fds(&[&message(1, 1, &[])[..]], &fds).unwrap();
    let mut request = channel.receive().unwrap().unwrap();
    assert_eq!(request.files.len(), 253);
    assert_eq!(
        request.take_files(1).unwrap_err(),
        PayloadError::Fds { got: 253, want: 1 }
    );
    // Other tests of this process open and close descriptors too, but not by the hundred.
    assert!(open_fds() < before + 200);
}

#[test]
fn a_longer_payload_than_needed_is_accepted_and_a_shorter_one_is_not() {
    let request = |len| Request {
        code: 5,
        flags: 1,
        payload: vec![1; len],
        files: Vec::new(),
    };
    assert!(request(72).body::<VhostUserMemory>().is_ok());
    assert_eq!(
        request(7).body::<VhostUserMemory>().err(),
        Some(PayloadError::Short { got: 7, want: 8 })
    );
}

#[test]
fn a_reply_carries_version_and_flag() {
    let (mut channel, mut far) = pair();
    channel.reply(24, &[9, 8, 7]).unwrap();
    let mut bytes = [0; 15];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..], message(24, 0x5, &[9, 8, 7])[..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, `receive` returns: requests, an end, or an error.
    #[test]
    fn no_bytes_make_it_panic_or_hang(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut channel, mut far) = pair();
        far.write_all(&bytes).unwrap();
        drop(far);
        while let Ok(Some(_)) = channel.receive() {}
    }
}
