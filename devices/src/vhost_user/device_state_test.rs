use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use vhost::vhost_user::message::{BackendReq, FrontendReq};

use super::super::channel::{HEADER_SIZE, Header, NEED_REPLY, REPLY, VERSION};
use super::super::files;
use super::super::requests::BackendRequests;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// More than a pipe holds.
static STATE: [u8; 200_000] = [7; 200_000];

/// Takes one message, and answers it with `number`.
fn take(
    mut stream: &UnixStream,
    request: FrontendReq,
    payload: usize,
    number: u64,
) -> Option<File> {
    let mut message = vec![0; HEADER_SIZE + payload];
    let (count, file) = files::receive(stream, &mut message).unwrap();
    assert_eq!(count, message.len());
    assert_eq!(message[..4], u32::from(request).to_ne_bytes());
    let header = Header {
        request: request.into(),
        flags: VERSION | REPLY,
        size: 8,
    };
    let answer = [&header.to_bytes()[..], &number.to_ne_bytes()].concat();
    stream.write_all(&answer).unwrap();
    file
}

/// Asks for something and waits until it is done.
fn ask(mut requests: &UnixStream) {
    let header = Header {
        request: BackendReq::CONFIG_CHANGE_MSG.into(),
        flags: VERSION | NEED_REPLY,
        size: 0,
    };
    requests.write_all(&header.to_bytes()).unwrap();
    requests.read_exact(&mut [0; HEADER_SIZE + 8]).unwrap();
}

/// Runs `frontend` against a backend that has a request answered before it does `act`.
fn exchange<T>(
    act: impl FnOnce(&mut File) + Send,
    frontend: impl FnOnce(&mut Channel, &Deadline) -> T,
) -> T {
    const NO_FILE: u64 = 0x100;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (requests, asking) = BackendRequests::new().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let file = take(&theirs, FrontendReq::SET_DEVICE_STATE_FD, 8, NO_FILE);
            let mut file = file.expect("one end of a pipe");
            ask(&asking);
            act(&mut file);
            drop(file);
            take(&theirs, FrontendReq::CHECK_DEVICE_STATE, 0, 0);
        });
        let mut channel = Channel::new(ours);
        channel.serve_meanwhile(requests);
        frontend(&mut channel, &Deadline::after(PATIENCE))
    })
}

#[test]
fn a_backend_may_have_a_request_answered_before_it_writes_its_state() {
    let state = exchange(|file| file.write_all(&STATE).unwrap(), save);
    assert_eq!(state.unwrap(), STATE);
}

#[test]
fn a_backend_may_have_a_request_answered_before_it_reads_its_state() {
    let mut loaded = Vec::new();
    let done = exchange(
        |file| {
            file.read_to_end(&mut loaded).unwrap();
        },
        |channel, deadline| load(channel, &STATE, deadline),
    );
    done.unwrap();
    assert_eq!(loaded, STATE);
}
