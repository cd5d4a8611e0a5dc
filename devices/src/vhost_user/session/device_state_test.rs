use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use vhost::vhost_user::message::{BackendReq, FrontendReq};

use vhost_user_wire::payload::NO_FILE;
use vhost_user_wire::{Connection, Header, Payload};

use super::super::requests::BackendRequests;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// More than a pipe holds.
static STATE: [u8; 200_000] = [7; 200_000];

/// Takes one message, and answers it with `number`.
fn take(backend: &mut Connection, request: FrontendReq, number: u64) -> Option<File> {
    let deadline = Deadline::after(PATIENCE);
    let message = backend.receive(&deadline).unwrap();
    assert_eq!(message.header.request, u32::from(request));
    let (header, payload) = (message.header.reply(8), number.to_bytes());
    backend.send(header, &payload, &[], &deadline).unwrap();
    message.files.into_iter().next()
}

/// Asks for something and waits until it is done.
fn ask(requests: UnixStream) {
    let mut requests = Connection::to_frontend(requests);
    let deadline = Deadline::after(PATIENCE);
    let header = Header::request(BackendReq::CONFIG_CHANGE_MSG, 0).with_ack();
    requests.send(header, &[], &[], &deadline).unwrap();
    let answer = requests.receive(&deadline).unwrap();
    assert_eq!(answer.body(), Ok(0u64));
}

/// Runs `frontend` against a backend that has a request answered before it does `act`.
fn exchange<T>(
    act: impl FnOnce(&mut File) + Send,
    frontend: impl FnOnce(&mut Channel, &Deadline) -> T,
) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (requests, asking) = BackendRequests::new().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut backend = Connection::to_frontend(theirs);
            let file = take(&mut backend, FrontendReq::SET_DEVICE_STATE_FD, NO_FILE);
            let mut file = file.expect("one end of a pipe");
            ask(asking);
            act(&mut file);
            drop(file);
            take(&mut backend, FrontendReq::CHECK_DEVICE_STATE, 0);
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

/// A backend may hand over a file of its own to use instead.
#[test]
fn a_backend_s_own_socket_that_it_does_not_read_is_waited_for_until_the_deadline() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (unread, given) = UnixStream::pair().unwrap();
    set_socket_send_buffer_size(&given, 0).unwrap();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut backend = Connection::to_frontend(theirs);
            let deadline = Deadline::after(PATIENCE);
            let message = backend.receive(&deadline).unwrap();
            let (header, payload) = (message.header.reply(8), 0u64.to_bytes());
            let files = [given.as_fd()];
            backend.send(header, &payload, &files, &deadline).unwrap();
            // Whoever waits for longer gets another error.
            let _ = is_done.recv_timeout(PATIENCE);
            drop(unread);
        });
        let mut channel = Channel::new(ours);
        let deadline = Deadline::after(Duration::from_millis(300));
        let loaded = load(&mut channel, &STATE, &deadline);
        done.send(()).unwrap();
        let is_late = |error: &io::Error| error.kind() == ErrorKind::TimedOut;
        assert!(
            matches!(&loaded, Err(Problem::State(error)) if is_late(error)),
            "{loaded:?}"
        );
    });
}
