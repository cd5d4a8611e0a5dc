use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use vhost::vhost_user::message::{BackendReq, FrontendReq as F};
use vhost_user_wire::{Connection, Deadline, Header, Message, WireError};

use super::*;
use crate::trace::faults::{FaultFile, Plan};
use crate::trace::format::Writer;
use crate::trace::record::{Event, Record, Side};
use crate::trace::sink::Sink;

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Record>>>);

impl Writer for Kept {
    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.0.lock().unwrap().push(record.clone());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

/// A proxy, and the listener of a backend behind it.
struct Bench {
    dir: tempfile::TempDir,
    backend: UnixListener,
    quit: UnixStream,
    proxy: JoinHandle<Result<(), ProxyError>>,
    kept: Kept,
    recorder: Recorder,
    faults: Faults,
}

impl Bench {
    fn new() -> Self {
        Self::with_faults("")
    }

    /// With --rings.
    fn with_faults(text: &str) -> Self {
        let rules = FaultFile::parse(text).unwrap().rules;
        let faults = Faults::new(Plan::new(rules, 7, vec!["disk".into()]));
        let dir = tempfile::tempdir().unwrap();
        let route = Route {
            listen: dir.path().join("disk.sock"),
            connect: dir.path().join("backend.sock"),
            device: "disk".into(),
            device_type: Some(DeviceType::BLK),
            rings: !text.is_empty(),
            faults: (!text.is_empty()).then(|| faults.clone()),
        };
        let backend = UnixListener::bind(&route.connect).unwrap();
        let (quit, theirs) = UnixStream::pair().unwrap();
        let kept = Kept::default();
        let recorder = Recorder::new(Sink::start(Box::new(kept.clone())).unwrap());
        let theirs_too = recorder.clone();
        let serve = move || run(&route, &theirs_too, theirs.as_fd(), |_| {});
        let proxy = thread::spawn(serve);
        Self {
            dir,
            backend,
            quit,
            proxy,
            kept,
            recorder,
            faults,
        }
    }

    /// A frontend and the backend that it reaches.
    fn connect(&self) -> (Connection, Connection) {
        let began = Instant::now();
        let frontend = loop {
            match UnixStream::connect(self.dir.path().join("disk.sock")) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed().as_secs() < 20, "{error}"),
            }
        };
        let (backend, _) = self.backend.accept().unwrap();
        (
            Connection::to_backend(frontend),
            Connection::to_frontend(backend),
        )
    }

    /// The records, when the proxy has quit.
    fn finish(mut self) -> Vec<Record> {
        self.quit.write_all(b"x").unwrap();
        self.proxy.join().unwrap().unwrap();
        self.recorder.finish().unwrap();
        std::mem::take(&mut self.kept.0.lock().unwrap())
    }
}

fn messages(records: &[Record]) -> Vec<&crate::trace::record::Message> {
    let message = |record: &'_ Record| matches!(&record.event, Event::Message(_));
    let records = records.iter().filter(|record| message(record));
    records
        .filter_map(|record| match &record.event {
            Event::Message(message) => Some(message),
            _ => None,
        })
        .collect()
}

fn send(to: &Connection, code: impl Into<u32>, payload: &[u8], files: &[BorrowedFd<'_>]) {
    let header = Header::request(code, payload.len());
    to.send(header, payload, files, &deadline()).unwrap();
}

fn receive(from: &mut Connection) -> Message {
    from.receive(&deadline()).unwrap()
}

fn eventfd_id(file: &impl AsRawFd) -> String {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
    let line = info.lines().find(|line| line.starts_with("eventfd-id"));
    line.unwrap().to_owned()
}

#[test]
fn a_backend_has_the_guest_s_own_eventfds() {
    let bench = Bench::new();
    let (frontend, mut backend) = bench.connect();
    let [kick, call] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    send(&frontend, F::SET_VRING_KICK, &[0; 8], &[kick.as_fd()]);
    send(&frontend, F::SET_VRING_CALL, &[0; 8], &[call.as_fd()]);
    let theirs = receive(&mut backend).take_file().unwrap();
    assert_eq!(eventfd_id(&theirs), eventfd_id(&kick));
    let theirs = receive(&mut backend).take_file().unwrap();
    assert_eq!(eventfd_id(&theirs), eventfd_id(&call));
    let records = bench.finish();
    let numbers: Vec<_> = messages(&records)
        .iter()
        .map(|message| message.files[0].number)
        .collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn replies_go_back_and_have_a_latency() {
    let bench = Bench::new();
    let (mut frontend, mut backend) = bench.connect();
    send(&frontend, F::GET_FEATURES, &[], &[]);
    let asked = receive(&mut backend);
    let payload = 0x42u64.to_ne_bytes();
    let reply = asked.header.reply(payload.len());
    backend.send(reply, &payload, &[], &deadline()).unwrap();
    assert_eq!(receive(&mut frontend).body::<u64>().unwrap(), 0x42);
    let records = bench.finish();
    let messages = messages(&records);
    assert!(messages[1].latency.is_some_and(|latency| latency > 0));
    assert_eq!(messages[1].from, Side::Backend);
}

#[test]
fn requests_of_the_backend_and_their_answers_are_seen() {
    let bench = Bench::new();
    let (frontend, mut backend) = bench.connect();
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&frontend, F::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]);
    drop(theirs);
    let theirs = receive(&mut backend).take_file().unwrap();
    let mut theirs = Connection::to_frontend(std::os::fd::OwnedFd::from(theirs).into());
    let mut ours = Connection::to_backend(ours);
    let memory = tempfile::tempfile().unwrap();
    let request = Header::request(BackendReq::SHMEM_MAP, 40).with_ack();
    theirs
        .send(request, &[0; 40], &[memory.as_fd()], &deadline())
        .unwrap();
    let mut asked = receive(&mut ours);
    assert_eq!(asked.header.request, u32::from(BackendReq::SHMEM_MAP));
    assert_eq!(asked.take_files(1).unwrap().len(), 1);
    ours.send(asked.header.reply(8), &[0; 8], &[], &deadline())
        .unwrap();
    assert_eq!(receive(&mut theirs).payload, [0; 8]);
    // The frontend's own end sees the hang-up.
    drop(theirs);
    let error = ours.receive(&deadline()).unwrap_err();
    assert!(error.is_end(), "{error}");
    let records = bench.finish();
    let messages = messages(&records);
    assert!(
        messages[1..]
            .iter()
            .all(|message| message.channel == Side::Backend)
    );
    assert!(messages[2].latency.is_some());
}

#[test]
fn what_nobody_knows_and_what_is_malformed_is_passed_on_as_it_is() {
    let bench = Bench::new();
    let (frontend, backend) = bench.connect();
    let mut backend = Connection::to_either(backend.stream().try_clone().unwrap());
    let file = tempfile::tempfile().unwrap();
    let long = [&[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0][..], &vec![7; 1 << 17]].concat();
    let odd = [0xff; 12];
    let unknown = [&[0x10, 0x27, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0][..], b"hi"].concat();
    let files = vec![file.as_fd(); 200];
    frontend.send_bytes(&unknown, &files, &deadline()).unwrap();
    let sender = frontend.stream().try_clone().unwrap();
    let all: Vec<u8> = [&long[..], &odd, b"and so on"].concat();
    let sent = all.clone();
    let sending = thread::spawn(move || (&sender).write_all(&sent));
    let mut got = Vec::new();
    let mut count = 0;
    while got.len() < unknown.len() + all.len() {
        rustix::event::poll(&mut [PollFd::new(&backend, PollFlags::IN)], None).unwrap();
        if let Some(raw) = backend.try_receive_some(1 << 16).unwrap() {
            got.extend(raw.bytes);
            count += raw.files.len();
        }
    }
    sending.join().unwrap().unwrap();
    assert_eq!((got, count), ([unknown, all].concat(), 200));
    let records = bench.finish();
    let Event::Message(first) = &records[1].event else {
        panic!("{records:?}")
    };
    assert_eq!((first.request, &first.payload[..]), (10_000, &b"hi"[..]));
}

#[test]
fn half_a_message_is_passed_on_when_its_sender_hangs_up() {
    for partial in [&[1, 0, 0][..], &[1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 5, 5]] {
        let bench = Bench::new();
        let (frontend, backend) = bench.connect();
        frontend.stream().write_all(partial).unwrap();
        drop(frontend);
        let mut got = Vec::new();
        io::Read::read_to_end(&mut backend.stream(), &mut got).unwrap();
        assert_eq!(got, partial);
        let records = bench.finish();
        assert_eq!(
            records.last().unwrap().event,
            Event::Closed { by: Side::Frontend }
        );
    }
}

/// The end of a stream: the other side has gone.
fn assert_ended(end: &mut Connection) {
    let error: WireError = end.receive(&deadline()).unwrap_err();
    assert!(error.is_closed(), "{error}");
}

#[test]
fn each_side_s_end_is_the_other_s_and_the_next_frontend_is_served() {
    let bench = Bench::new();
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_OWNER, &[], &[]);
    drop(frontend);
    assert_eq!(
        receive(&mut backend).header.request,
        u32::from(F::SET_OWNER)
    );
    assert_ended(&mut backend);
    let (mut frontend, backend) = bench.connect();
    send(&backend, F::GET_FEATURES, &[0; 8], &[]);
    drop(backend);
    assert_eq!(receive(&mut frontend).payload, [0; 8]);
    assert_ended(&mut frontend);
    let records = bench.finish();
    let ends: Vec<_> = records
        .iter()
        .filter_map(|record| match record.event {
            Event::Closed { by } => Some((record.connection, by)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(1, Side::Frontend), (2, Side::Backend)]);
}

#[test]
fn a_frontend_without_a_backend_is_hung_up_to() {
    let bench = Bench::new();
    let (_frontend, _backend) = bench.connect();
    std::fs::remove_file(bench.dir.path().join("backend.sock")).unwrap();
    let stream = UnixStream::connect(bench.dir.path().join("disk.sock")).unwrap();
    assert_ended(&mut Connection::to_backend(stream));
    bench.finish();
}

#[test]
fn quitting_hangs_up_to_both_sides() {
    let bench = Bench::new();
    let (mut frontend, mut backend) = bench.connect();
    let socket = bench.dir.path().join("disk.sock");
    assert!(socket.exists());
    let records = bench.finish();
    assert_ended(&mut frontend);
    assert_ended(&mut backend);
    let events: Vec<_> = records.iter().map(|record| &record.event).collect();
    assert_eq!(events, [&Event::Connected, &Event::End]);
    assert!(!socket.exists());
}

#[path = "faults_test.rs"]
mod faults;
