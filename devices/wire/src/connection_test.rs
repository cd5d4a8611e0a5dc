use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::error::PayloadError;
use crate::payload::Payload;

/// For what comes at once.
const PROMPT: Duration = Duration::from_secs(20);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(50);

/// A backend's end, and the frontend's.
fn pair() -> (Connection, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Connection::to_frontend(near), far)
}

fn receive(connection: &mut Connection) -> Result<Message, WireError> {
    connection.receive(&Deadline::after(PROMPT))
}

fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request,
        flags,
        size: payload.len() as u32,
    };
    [&header.to_bytes()[..], payload].concat()
}

/// Sends `bytes` with `count` descriptors of `file`.
fn send_with(stream: &UnixStream, bytes: &[u8], file: &File, count: usize) {
    let sender = Connection::to_backend(stream.try_clone().unwrap());
    let files = vec![file.as_fd(); count];
    let deadline = Deadline::after(PROMPT);
    sender.send_bytes(bytes, &files, &deadline).unwrap();
}

/// How many descriptors of this process are for the same file.
fn copies(file: &File) -> usize {
    let inode = file.metadata().unwrap().ino();
    let is_it = |entry: io::Result<std::fs::DirEntry>| {
        let metadata = std::fs::metadata(entry.ok()?.path()).ok()?;
        (metadata.ino() == inode).then_some(())
    };
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(is_it).count()
}

#[test]
fn a_request_comes_through_with_its_file() {
    let (mut near, far) = pair();
    let far = Connection::to_backend(far);
    let file = tempfile::tempfile().unwrap();
    let payload = 5u64.to_bytes();
    let header = Header::request(FrontendReq::SET_VRING_KICK, payload.len()).with_ack();
    let deadline = Deadline::after(PROMPT);
    far.send(header, &payload, &[file.as_fd()], &deadline)
        .unwrap();
    let mut message = receive(&mut near).unwrap();
    assert_eq!(message.header, header);
    assert_eq!(message.body::<u64>(), Ok(5));
    let received = message.take_file().unwrap();
    assert_eq!(
        received.metadata().unwrap().ino(),
        file.metadata().unwrap().ino()
    );
    let flags = rustix::io::fcntl_getfd(&received).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let none = message.take_file().unwrap_err();
    assert_eq!(none, PayloadError::Fds { got: 0, want: 1 });
}

#[test]
fn the_end_between_messages_is_told_from_the_end_within_one() {
    let whole = message(2, 1, &7u64.to_ne_bytes());
    for cut in 0..whole.len() {
        let (mut near, mut far) = pair();
        far.write_all(&message(1, 1, &[])).unwrap();
        far.write_all(&whole[..cut]).unwrap();
        drop(far);
        receive(&mut near).unwrap();
        let error = receive(&mut near).unwrap_err();
        assert_eq!((error.is_closed(), error.is_end()), (true, cut == 0));
        let expected = match cut {
            ..HEADER_SIZE => (HEADER, cut, HEADER_SIZE),
            _ => (PAYLOAD, cut - HEADER_SIZE, 8),
        };
        let Progress {
            part,
            received,
            expected: all,
        } = near.progress();
        assert_eq!((part, received, all), expected);
    }
}

#[test]
fn a_peer_that_leaves_a_reply_unread_has_closed_the_connection_too() {
    let (mut near, far) = pair();
    near.send_now(Header::request(1u32, 0), &[]).unwrap();
    drop(far);
    assert!(receive(&mut near).unwrap_err().is_end());
    let gone = near.send_now(Header::request(1u32, 0), &[]).unwrap_err();
    assert!(gone.is_closed(), "{gone}");
}

#[test]
fn a_peer_that_falls_silent_within_a_message_is_late() {
    let (mut near, mut far) = pair();
    far.write_all(&message(2, 1, &7u64.to_ne_bytes())[..15])
        .unwrap();
    let begun = Instant::now();
    let late = near.receive(&Deadline::after(SHORT)).unwrap_err();
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(
        late.to_string(),
        "the peer did not send a message within 50ms (3 of the 8 bytes of a payload came)"
    );
}

/// A byte now and then is no reason to wait for longer.
#[test]
fn the_deadline_is_for_the_whole_message() {
    let (mut near, mut far) = pair();
    let stop = near.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let bytes = message(2, 1, &[1; 4000]);
            let mut bytes = bytes.iter();
            while bytes
                .next()
                .is_some_and(|byte| far.write_all(&[*byte]).is_ok())
            {
                thread::sleep(SHORT / 4);
            }
        });
        let late = near.receive(&Deadline::after(2 * SHORT)).unwrap_err();
        assert!(matches!(late, WireError::Late { .. }), "{late}");
        stop.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let (near, _far) = pair();
    let header = Header::request(1u32, MAX_PAYLOAD);
    let payload = [0; MAX_PAYLOAD];
    let deadline = Deadline::after(SHORT);
    let stuck = (0..100_000).find_map(|_| near.send(header, &payload, &[], &deadline).err());
    assert!(matches!(stuck, Some(WireError::Stuck { .. })), "{stuck:?}");
    let full = near.send_now(header, &payload).unwrap_err();
    assert!(matches!(full, WireError::Socket(_)), "{full}");
}

#[test]
fn other_versions_and_oversized_payloads_are_refused_before_there_is_room_for_them() {
    for (flags, size, what) in [
        (
            2,
            0,
            "the peer speaks protocol version 2; known is version 1",
        ),
        (
            0,
            0,
            "the peer speaks protocol version 0; known is version 1",
        ),
        (
            1,
            4109,
            "the peer announced a payload of 4109 bytes; at most 4108 are accepted",
        ),
        (
            1,
            u32::MAX,
            "the peer announced a payload of 4294967295 bytes; at most 4108 are accepted",
        ),
    ] {
        let (mut near, mut far) = pair();
        let header = Header {
            request: 1,
            flags,
            size,
        };
        far.write_all(&header.to_bytes()).unwrap();
        assert_eq!(near.header().unwrap(), Some(header), "it can be looked at");
        assert_eq!(receive(&mut near).unwrap_err().to_string(), what);
        assert!(near.received.capacity() <= HEADER_SIZE + MAX_PAYLOAD);
    }
}

#[test]
fn the_longest_payload_is_accepted_and_an_unknown_request_keeps_the_stream_in_step() {
    let (mut near, mut far) = pair();
    far.write_all(&message(9999, 1, &[1; MAX_PAYLOAD])).unwrap();
    far.write_all(&message(1, 1, &[])).unwrap();
    let unknown = receive(&mut near).unwrap();
    assert_eq!(
        (unknown.header.request, unknown.payload.len()),
        (9999, MAX_PAYLOAD)
    );
    assert_eq!(receive(&mut near).unwrap().header.request, 1);
}

#[test]
fn nothing_is_waited_for_unless_that_is_asked_for() {
    let (mut near, mut far) = pair();
    assert!(near.try_receive().unwrap().is_none());
    assert!(!near.progress().has_begun());
    for byte in message(2, 1, &[1]) {
        assert!(near.try_receive().unwrap().is_none());
        far.write_all(&[byte]).unwrap();
    }
    assert!(near.progress().has_begun());
    assert!(near.try_receive().unwrap().is_some());
    assert!(!near.progress().has_begun());
}

#[test]
fn a_wrong_number_of_files_is_counted_and_closed() {
    let (mut near, far) = pair();
    let file = tempfile::tempfile().unwrap();
    for got in [0, 2, 250, FRONTEND_FILES] {
        send_with(&far, &message(1, 1, &[]), &file, got);
        let mut message = receive(&mut near).unwrap();
        let wrong = message.take_files(1).unwrap_err();
        assert_eq!(wrong, PayloadError::Fds { got, want: 1 });
        assert_eq!(copies(&file), 1);
    }
}

#[test]
fn more_files_than_a_backend_may_send_are_closed_and_end_the_connection() {
    let file = tempfile::tempfile().unwrap();
    for count in [0, 1, 7, 8, 9, 10, 11, FRONTEND_FILES] {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Connection::to_backend(near);
        send_with(&far, &message(1, 1, &[]), &file, count);
        match receive(&mut near) {
            Ok(message) => assert_eq!(message.files.len(), count),
            Err(error) => {
                assert!(count > BACKEND_FILES, "{error}");
                assert!(matches!(
                    error,
                    WireError::Descriptors {
                        most: BACKEND_FILES
                    }
                ));
            }
        }
        assert_eq!(copies(&file), 1);
    }
}

/// Each byte of a message may bring some.
#[test]
fn files_do_not_pile_up_within_a_message() {
    let (near, far) = UnixStream::pair().unwrap();
    let mut near = Connection::to_backend(near);
    let file = tempfile::tempfile().unwrap();
    for byte in message(1, 1, &[1; 100]) {
        send_with(&far, &[byte], &file, 5);
    }
    let error = receive(&mut near).unwrap_err();
    assert!(matches!(error, WireError::Descriptors { .. }), "{error}");
    assert_eq!(near.files.len(), 0);
}

#[test]
fn more_files_than_the_kernel_sends_are_an_error_and_no_message() {
    let (near, _far) = pair();
    let file = tempfile::tempfile().unwrap();
    let files = vec![file.as_fd(); 1000];
    let error = near.send_bytes(&[1], &files, &Deadline::after(PROMPT));
    assert!(matches!(error, Err(WireError::Socket(_))), "{error:?}");
}

#[test]
fn the_socket_stays_as_it_was() {
    let (mut near, far) = pair();
    let _ = near.try_receive();
    let copy: OwnedFd = near.stream().try_clone().unwrap().into();
    let flags = rustix::fs::fcntl_getfl(&copy).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    drop(far);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes, messages come out, or an end, or an error; and no file stays.
    #[test]
    fn no_bytes_make_it_panic_or_hang(
        bytes in proptest::collection::vec(prop_oneof![4 => 0u8..3, 1 => any::<u8>()], 1..300),
        count in 0usize..20,
    ) {
        let (mut near, far) = pair();
        let file = tempfile::tempfile().unwrap();
        send_with(&far, &bytes, &file, count);
        drop(far);
        while receive(&mut near).is_ok() {}
        drop(near);
        prop_assert_eq!(copies(&file), 1);
    }
}

#[test]
fn somebody_in_between_gets_what_no_peer_would_take() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut near = Connection::to_either(near);
    let file = tempfile::tempfile().unwrap();
    let odd = message(4711, 0xffff_fffe, &[1, 2, 3]);
    send_with(&far, &odd, &file, 2);
    let raw = near.try_receive_raw(64).unwrap().unwrap();
    assert_eq!((raw.bytes, raw.files.len()), (odd, 2));

    let long = message(1, 1, &[7; 100]);
    far.write_all(&long).unwrap();
    let head = near.try_receive_raw(64).unwrap().unwrap();
    assert_eq!(head.header().unwrap().size, 100);
    let rest = near.try_receive_some(1000).unwrap().unwrap();
    assert_eq!([head.bytes, rest.bytes].concat(), long);

    far.write_all(&long[..5]).unwrap();
    assert!(near.try_receive_raw(64).unwrap().is_none());
    drop(far);
    assert!(near.try_receive_raw(64).unwrap_err().is_closed());
    assert_eq!(near.take_received().bytes, long[..5]);
}
