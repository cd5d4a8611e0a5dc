use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::frontend::*;
use vhost_user_wire::{HEADER_SIZE, NEED_REPLY, REPLY};
use vmm_sys_util::eventfd::EventFd;

use vhost_user_wire::Progress;

use super::*;

const PROMPT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

/// A header and payload as a backend would send them.
fn message(request: FrontendReq, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request: request.into(),
        flags,
        size: payload.len() as u32,
    };
    [&header.to_bytes()[..], payload].concat()
}

fn features_reply(features: u64) -> Vec<u8> {
    message(
        FrontendReq::GET_FEATURES,
        VERSION | REPLY,
        &features.to_ne_bytes(),
    )
}

/// Runs `backend` on the other end while `frontend` talks.
fn converse<T>(
    backend: impl FnOnce(UnixStream) + Send,
    frontend: impl FnOnce(&mut Channel) -> T,
) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| backend(theirs));
        frontend(&mut Channel::new(ours))
    })
}

/// Reads one request; returns its header and payload.
fn take_request(stream: &mut UnixStream) -> (Header, Vec<u8>) {
    let mut header = [0; HEADER_SIZE];
    stream.read_exact(&mut header).unwrap();
    let header = Header::from_bytes(header);
    let mut payload = vec![0; header.size as usize];
    stream.read_exact(&mut payload).unwrap();
    (header, payload)
}

/// Answers GET_FEATURES with `bytes`, then holds the connection open until the
/// frontend has gone.
fn answering(bytes: Vec<u8>) -> impl FnOnce(UnixStream) + Send {
    move |mut stream| {
        take_request(&mut stream);
        stream.write_all(&bytes).unwrap();
        // Until the frontend hangs up.
        let _ = stream.read(&mut [0]);
    }
}

fn ask_features(channel: &mut Channel, patience: Duration) -> Result<u64, ChannelError> {
    channel.ask(&GetFeatures, &Deadline::after(patience))
}

fn features_of(bytes: Vec<u8>) -> Result<u64, ChannelError> {
    converse(answering(bytes), |channel| ask_features(channel, PROMPT))
}

#[test]
fn a_request_is_a_header_and_its_reply_comes_back() {
    let backend = |mut stream: UnixStream| {
        let (header, payload) = take_request(&mut stream);
        assert_eq!(header.request, 1, "GET_FEATURES");
        assert_eq!(header.flags, 1, "version 1, no reply, none asked for");
        assert!(payload.is_empty());
        stream.write_all(&features_reply(0x1234_5678_9abc)).unwrap();
    };
    let features = converse(backend, |channel| ask_features(channel, PROMPT));
    assert_eq!(features.unwrap(), 0x1234_5678_9abc);
}

#[test]
fn a_reply_may_come_in_pieces() {
    let backend = |mut stream: UnixStream| {
        take_request(&mut stream);
        for byte in features_reply(7) {
            stream.write_all(&[byte]).unwrap();
            thread::yield_now();
        }
    };
    let features = converse(backend, |channel| ask_features(channel, PROMPT));
    assert_eq!(features.unwrap(), 7);
}

#[test]
fn a_backend_that_never_answers_ends_at_the_deadline_which_names_the_message() {
    let start = Instant::now();
    let error = converse(answering(Vec::new()), |channel| {
        ask_features(channel, SHORT)
    })
    .unwrap_err();
    assert!(start.elapsed() >= SHORT);
    assert!(!error.is_refusal());
    assert_eq!(
        error.to_string(),
        "the backend did not answer GET_FEATURES within 50ms (0 of 12 bytes came)"
    );
}

#[test]
fn a_backend_that_stops_in_the_middle_ends_at_the_deadline_too() {
    let mut bytes = features_reply(7);
    bytes.truncate(15);
    let error = converse(answering(bytes), |channel| ask_features(channel, SHORT)).unwrap_err();
    assert!(
        matches!(
            error,
            ChannelError::Late {
                message: FrontendReq::GET_FEATURES,
                progress: Progress {
                    received: 3,
                    expected: 8,
                    ..
                },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_deadline_is_for_the_whole_reply_not_for_each_byte() {
    let patience = Duration::from_millis(200);
    let backend = |mut stream: UnixStream| {
        take_request(&mut stream);
        // One byte at a time, each well within the deadline, until the
        // frontend has had enough.
        for byte in features_reply(7).into_iter().cycle() {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(patience / 4);
        }
    };
    let start = Instant::now();
    let error = converse(backend, |channel| {
        let result = ask_features(channel, patience);
        // Hang up, which ends the backend's loop.
        let stream = channel.connection.stream();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        result
    })
    .unwrap_err();
    assert!(matches!(error, ChannelError::Late { .. }), "{error}");
    assert!(start.elapsed() < patience * 5);
}

#[test]
fn a_backend_that_hangs_up_is_told_apart_from_a_slow_one() {
    for sent in [0, 5, 12, 19] {
        let backend = move |mut stream: UnixStream| {
            take_request(&mut stream);
            stream.write_all(&features_reply(7)[..sent]).unwrap();
        };
        let error = converse(backend, |channel| ask_features(channel, PROMPT)).unwrap_err();
        assert!(
            matches!(
                error,
                ChannelError::Closed {
                    message: FrontendReq::GET_FEATURES,
                    ..
                }
            ),
            "after {sent} bytes: {error}"
        );
    }
}

#[test]
fn a_backend_that_is_gone_already_is_noticed_when_sending() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let error = ask_features(&mut Channel::new(ours), PROMPT).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(
        error.to_string(),
        "the backend closed the connection instead of taking GET_FEATURES; its own log may say why"
    );
}

#[test]
fn what_is_no_reply_to_the_request_is_refused() {
    let payload = 7u64.to_ne_bytes();
    for (what, bytes) in [
        (
            "another request's reply",
            message(FrontendReq::GET_QUEUE_NUM, VERSION | REPLY, &payload),
        ),
        (
            "no reply",
            message(FrontendReq::GET_FEATURES, VERSION, &payload),
        ),
        (
            "version 0",
            message(FrontendReq::GET_FEATURES, REPLY, &payload),
        ),
        (
            "version 2",
            message(FrontendReq::GET_FEATURES, 2 | REPLY, &payload),
        ),
        ("nonsense", vec![0xee; 20]),
    ] {
        let error = features_of(bytes).unwrap_err();
        assert!(
            matches!(
                error,
                ChannelError::NotTheReply {
                    message: FrontendReq::GET_FEATURES,
                    ..
                }
            ),
            "{what}: {error}"
        );
    }
}

#[test]
fn payloads_of_a_wrong_size_are_refused_before_they_are_read() {
    for size in [0u32, 4, 7, 9, 16, 4096, u32::MAX] {
        let header = Header {
            request: FrontendReq::GET_FEATURES.into(),
            flags: VERSION | REPLY,
            size,
        };
        let payload = vec![0; size.min(8) as usize];
        let bytes = [&header.to_bytes()[..], &payload].concat();
        let error = features_of(bytes).unwrap_err();
        assert!(
            matches!(error, ChannelError::ReplySize { found, .. } if found == size as usize),
            "{error}"
        );
    }
}

#[test]
fn messages_without_a_reply_wait_for_none_unless_acknowledged() {
    let backend = |mut stream: UnixStream| {
        let (header, payload) = take_request(&mut stream);
        assert_eq!(header.flags, VERSION);
        assert_eq!(payload, 5u64.to_ne_bytes());
        let (header, _) = take_request(&mut stream);
        assert_eq!(header.flags, VERSION | NEED_REPLY);
        let done = 0u64.to_ne_bytes();
        let ack = message(FrontendReq::SET_FEATURES, VERSION | REPLY, &done);
        stream.write_all(&ack).unwrap();
    };
    converse(backend, |channel| {
        let deadline = Deadline::after(PROMPT);
        channel.tell(&SetFeatures(5), &deadline).unwrap();
        channel.expect_acks();
        channel.tell(&SetFeatures(5), &deadline).unwrap();
    });
}

#[test]
fn a_refusal_is_no_reason_to_hang_up() {
    let backend = |mut stream: UnixStream| {
        take_request(&mut stream);
        let failed = 22u64.to_ne_bytes();
        let ack = message(FrontendReq::SET_VRING_NUM, VERSION | REPLY, &failed);
        stream.write_all(&ack).unwrap();
        take_request(&mut stream);
        stream.write_all(&features_reply(7)).unwrap();
    };
    converse(backend, |channel| {
        channel.expect_acks();
        let message = SetVringNum(VhostUserVringState::new(0, 1024));
        let error = channel
            .tell(&message, &Deadline::after(PROMPT))
            .unwrap_err();
        assert!(error.is_refusal());
        assert!(error.to_string().contains("queue-size="), "{error}");
        assert_eq!(ask_features(channel, PROMPT).unwrap(), 7);
    });
}

#[test]
fn a_backend_that_does_not_read_ends_at_the_deadline() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours);
    let deadline = Deadline::after(SHORT);
    let error = (0..100_000)
        .find_map(|_| channel.tell(&SetFeatures(0), &deadline).err())
        .expect("the socket's buffer is finite");
    assert!(
        matches!(
            error,
            ChannelError::Stuck {
                message: FrontendReq::SET_FEATURES,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn descriptors_go_with_their_message() {
    let fd = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let received = |stream: UnixStream| {
        let mut backend = Connection::to_frontend(stream);
        let mut message = backend.receive(&Deadline::after(PROMPT)).unwrap();
        assert_eq!(message.payload, 3u64.to_ne_bytes());
        let mut file = message.take_file().unwrap();
        file.write_all(&1u64.to_ne_bytes()).unwrap();
    };
    converse(received, |channel| {
        let kick = SetVringKick::new(3, &fd);
        channel.tell(&kick, &Deadline::after(PROMPT)).unwrap();
    });
    assert_eq!(fd.read().unwrap(), 1, "it was this one");
}

#[test]
fn descriptors_that_were_not_asked_for_are_not_kept() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours);
    let (extra, mut witness) = UnixStream::pair().unwrap();
    let theirs = Connection::to_frontend(theirs);
    let sent = theirs.send_bytes(
        &features_reply(7),
        &[extra.as_fd(); 8],
        &Deadline::after(PROMPT),
    );
    sent.unwrap();
    drop(extra);
    assert_eq!(ask_features(&mut channel, PROMPT).unwrap(), 7);
    witness.set_read_timeout(Some(PROMPT)).unwrap();
    let read = witness.read(&mut [0]);
    assert_eq!(read.unwrap(), 0, "its other end is closed everywhere");
}

/// CONFIG_CHANGE_MSG (vhost-user document, "Back-end message types").
const CONFIG_CHANGE: u32 = 2;

fn config_change(flags: u32) -> Vec<u8> {
    let header = Header {
        request: CONFIG_CHANGE,
        flags: VERSION | flags,
        size: 0,
    };
    header.to_bytes().to_vec()
}

/// One that has a single thread, or holds a lock meanwhile.
#[test]
fn a_backend_may_have_a_request_answered_before_it_answers() {
    let (requests, mut theirs) = BackendRequests::new().unwrap();
    let backend = move |mut stream: UnixStream| {
        take_request(&mut stream);
        for _ in 0..3 {
            theirs.write_all(&config_change(NEED_REPLY)).unwrap();
            let mut answer = [0; HEADER_SIZE + 8];
            theirs.read_exact(&mut answer).unwrap();
            assert_eq!(answer[HEADER_SIZE..], 0u64.to_ne_bytes());
        }
        // More than its socket takes without somebody who reads them.
        for _ in 0..10_000 {
            theirs.write_all(&config_change(0)).unwrap();
        }
        stream.write_all(&features_reply(7)).unwrap();
        let _ = stream.read(&mut [0]);
    };
    converse(backend, |channel| {
        channel.serve_meanwhile(requests);
        assert_eq!(ask_features(channel, PROMPT).unwrap(), 7);
        let requests = channel.requests().as_mut().unwrap();
        assert!(requests.serve().unwrap().config_changed);
    });
}

#[test]
fn a_backend_that_asks_and_never_answers_is_late() {
    let (requests, theirs) = BackendRequests::new().unwrap();
    let flood = move |stream: UnixStream| {
        while (&theirs).write_all(&config_change(0)).is_ok() {}
        drop(stream);
    };
    let error = converse(flood, |channel| {
        channel.serve_meanwhile(requests);
        let late = ask_features(channel, SHORT).unwrap_err();
        *channel.requests() = None;
        late
    });
    assert!(matches!(error, ChannelError::Late { .. }), "{error}");
}

#[test]
fn a_backend_that_ends_its_requests_may_still_answer() {
    let (requests, theirs) = BackendRequests::new().unwrap();
    let backend = move |stream| {
        drop(theirs);
        answering(features_reply(7))(stream);
    };
    converse(backend, |channel| {
        channel.serve_meanwhile(requests);
        assert_eq!(ask_features(channel, PROMPT).unwrap(), 7);
        assert_eq!(
            channel.tell(&SetOwner, &Deadline::after(PROMPT)).ok(),
            Some(())
        );
    });
}

#[test]
fn idle_tells_quiet_from_speech_from_hanging_up() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours);
    assert_eq!(channel.idle().unwrap(), Idle::Quiet);
    theirs.write_all(&[1]).unwrap();
    assert_eq!(channel.idle().unwrap(), Idle::Unsolicited);
    drop(theirs);
    assert_eq!(channel.idle().unwrap(), Idle::Closed);
}
