//! A backend that answers by the book, but for what a test tells it to do
//! instead.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vhost::vhost_user::message::{BackendReq, FrontendReq};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::requests::Request;

/// VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
pub const FEATURES: u64 = 1 << 32 | 1 << 30;
pub const MQ: u64 = 1;
pub const REPLY_ACK: u64 = 1 << 3;
pub const CONFIG: u64 = 1 << 9;

const HEADER_SIZE: usize = 12;
const NEED_REPLY: u32 = 1 << 3;

/// What to do about a message.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A reply with this payload.
    Payload(Vec<u8>),
    /// A reply of one number; an acknowledgement when there is no other reply.
    Number(u64),
    /// A reply with this payload and file.
    File(Vec<u8>, Arc<File>),
    /// These bytes, header and all.
    Raw(Vec<u8>),
    Silence,
    HangUp,
    /// By the book, but so much later.
    Late(Duration),
    /// By the book, as soon as the frontend has done all this.
    After(Vec<Request>),
    /// None, and these requests without end.
    Flood(Vec<Request>),
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub request: FrontendReq,
    pub payload: Vec<u8>,
    /// The inode of the file that came along, of one.
    pub inode: Option<u64>,
}

impl Received {
    /// A vring state: index and number.
    pub fn state(&self) -> (u32, u32) {
        let word = |at: usize| u32::from_ne_bytes(self.payload[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    pub fn number(&self) -> u64 {
        u64::from_ne_bytes(self.payload[..8].try_into().unwrap())
    }
}

/// What a backend is, and does other than by the book.
#[derive(Clone, Debug, Default)]
pub struct Life {
    script: HashMap<u32, Answer>,
    /// What each answer takes from now on, in milliseconds.
    pace: Arc<AtomicU64>,
}

impl Life {
    pub fn new(features: u64, protocol: u64) -> Self {
        Self::default()
            .answer(FrontendReq::GET_FEATURES, Answer::Number(features))
            .answer(FrontendReq::GET_PROTOCOL_FEATURES, Answer::Number(protocol))
    }

    pub fn answer(mut self, request: FrontendReq, answer: Answer) -> Self {
        self.script.insert(request.into(), answer);
        self
    }

    /// Where a test says how slow it is, in milliseconds an answer.
    pub fn pace(&self) -> Arc<AtomicU64> {
        self.pace.clone()
    }
}

/// A backend on a socket of its own, for one connection a life.
pub struct Scripted {
    pub socket: PathBuf,
    /// The present connection.
    stream: Arc<Mutex<Option<UnixStream>>>,
    /// The last socket for its own requests.
    requests: Arc<Mutex<Option<UnixStream>>>,
    /// The last descriptors for errors, by queue.
    errors: Arc<Mutex<HashMap<u64, File>>>,
    thread: JoinHandle<Vec<Vec<Received>>>,
    _dir: tempfile::TempDir,
}

impl Scripted {
    /// Offers `features` and `protocol`, and does as `answers` says.
    pub fn start(
        features: u64,
        protocol: u64,
        answers: impl IntoIterator<Item = (FrontendReq, Answer)>,
    ) -> Self {
        let life = Life::new(features, protocol);
        let answers = answers.into_iter();
        Self::lives([answers.fold(life, |life, (request, answer)| life.answer(request, answer))])
    }

    /// One connection after the other, while the socket stays.
    pub fn lives(lives: impl IntoIterator<Item = Life>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("scripted.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        Self::run(dir, socket, lives, move || listener.accept().unwrap().0)
    }

    /// The same for a frontend that listens on `socket`, sooner or later.
    pub fn dialling(socket: PathBuf, lives: impl IntoIterator<Item = Life>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = socket.clone();
        Self::run(dir, socket, lives, move || {
            loop {
                match UnixStream::connect(&path) {
                    Ok(stream) => return stream,
                    Err(_) => thread::yield_now(),
                }
            }
        })
    }

    fn run(
        dir: tempfile::TempDir,
        socket: PathBuf,
        lives: impl IntoIterator<Item = Life>,
        connect: impl Fn() -> UnixStream + Send + 'static,
    ) -> Self {
        let stream = Arc::new(Mutex::new(None));
        let present = stream.clone();
        let requests = Arc::new(Mutex::new(None));
        let asking = requests.clone();
        let errors = Arc::new(Mutex::new(HashMap::new()));
        let signs = errors.clone();
        let lives: Vec<_> = lives.into_iter().collect();
        let thread = thread::spawn(move || {
            let live = |life: Life| {
                let stream = connect();
                *present.lock().unwrap() = Some(stream.try_clone().unwrap());
                let received = serve(&stream, &life, &asking, &signs);
                *present.lock().unwrap() = None;
                *asking.lock().unwrap() = None;
                received
            };
            lives.into_iter().map(live).collect()
        });
        Self {
            socket,
            stream,
            requests,
            errors,
            thread,
            _dir: dir,
        }
    }

    /// Asks the frontend for something, without an answer.
    pub fn ask(&self, request: BackendReq) {
        let mut requests = self.requests();
        let header = [u32::from(request), 1, 0].map(u32::to_ne_bytes).concat();
        requests.write_all(&header).unwrap();
    }

    /// The socket for its requests.
    pub fn requests(&self) -> UnixStream {
        let requests = self.requests.lock().unwrap();
        let requests = requests.as_ref().expect("a socket for requests");
        requests.try_clone().unwrap()
    }

    /// Closes the socket for its requests.
    pub fn ask_no_more(&self) {
        let requests = self.requests.lock().unwrap().take();
        requests.expect("a socket for requests");
    }

    /// The descriptor to signal when a queue cannot be processed.
    pub fn error_sign(&self, queue: u64) -> File {
        let errors = self.errors.lock().unwrap();
        let sign = errors.get(&queue).expect("a descriptor for errors");
        sign.try_clone().unwrap()
    }

    /// Ends the present life: the frontend sees the connection close.
    pub fn die(&self) {
        let stream = self.stream.lock().unwrap().take();
        let stream = stream.expect("a backend that is connected");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// All that came in, once the frontend is gone.
    pub fn finish(self) -> Vec<Received> {
        self.finish_lives().concat()
    }

    /// All that came in, life by life, once all lives have ended.
    pub fn finish_lives(self) -> Vec<Vec<Received>> {
        self.thread.join().unwrap()
    }
}

fn serve(
    mut stream: &UnixStream,
    life: &Life,
    requests: &Mutex<Option<UnixStream>>,
    errors: &Mutex<HashMap<u64, File>>,
) -> Vec<Received> {
    let mut received = Vec::new();
    let mut header = [0; HEADER_SIZE];
    while let Some(file) = read_header(stream, &mut header) {
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let (request, flags, size) = (word(0), word(4), word(8));
        let mut payload = vec![0; size as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        let inode = file.as_ref().map(|file| file.metadata().unwrap().ino());
        match (FrontendReq::try_from(request).unwrap(), file) {
            (FrontendReq::SET_BACKEND_REQ_FD, file) => {
                *requests.lock().unwrap() = file.map(|file| OwnedFd::from(file).into());
            }
            (FrontendReq::SET_VRING_ERR, Some(file)) => {
                let queue = u64::from_ne_bytes(payload[..8].try_into().unwrap());
                errors.lock().unwrap().insert(queue, file);
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(life.pace.load(Ordering::Relaxed)));
        let answer = match life.script.get(&request).cloned() {
            Some(Answer::Late(pause)) => {
                thread::sleep(pause);
                None
            }
            Some(Answer::After(wishes)) => {
                have_done(&wishes, requests);
                None
            }
            Some(Answer::Flood(wishes)) => {
                flood(&wishes, requests);
                Some(Answer::HangUp)
            }
            answer => answer,
        };
        let answer = answer.unwrap_or_else(|| by_the_book(request, flags, &payload));
        received.push(Received {
            request: FrontendReq::try_from(request).unwrap(),
            payload,
            inode,
        });
        let bytes = match answer {
            Answer::Payload(payload) => reply(request, &payload),
            Answer::Number(number) => reply(request, &number.to_ne_bytes()),
            Answer::File(payload, file) => {
                let bytes = reply(request, &payload);
                match stream.send_with_fd(&bytes[..], file.as_raw_fd()) {
                    Ok(sent) => assert_eq!(sent, bytes.len()),
                    // The frontend may have given up already.
                    Err(_) => break,
                }
                continue;
            }
            Answer::Raw(bytes) => bytes,
            Answer::Silence => continue,
            Answer::HangUp => break,
            Answer::After(_) | Answer::Flood(_) | Answer::Late(_) => {
                unreachable!("no answers in themselves")
            }
        };
        // The frontend may have given up already.
        if stream.write_all(&bytes).is_err() {
            break;
        }
    }
    received
}

fn have_done(wishes: &[Request], requests: &Mutex<Option<UnixStream>>) {
    let requests = requests.lock().unwrap();
    let requests = requests.as_ref().expect("a socket for requests");
    for wish in wishes {
        assert_eq!(wish.ask(requests).expect("an answer"), 0, "{wish:?}");
    }
}

/// Until the frontend has enough.
fn flood(wishes: &[Request], requests: &Mutex<Option<UnixStream>>) {
    let requests = requests.lock().unwrap();
    let requests = requests.as_ref().expect("a socket for requests");
    let mut wishes = wishes.iter().cycle();
    while wishes.next().is_some_and(|wish| wish.ask(requests).is_ok()) {}
}

/// Reads a header, and the file that came with it if only one did.
fn read_header(mut stream: &UnixStream, header: &mut [u8; HEADER_SIZE]) -> Option<Option<File>> {
    let mut fds = [0; 8];
    let mut iovecs = [libc::iovec {
        iov_base: header.as_mut_ptr().cast(),
        iov_len: HEADER_SIZE,
    }];
    // SAFETY: the one buffer is valid and may hold any bytes.
    let (count, files) = unsafe { stream.recv_with_fds(&mut iovecs, &mut fds) }.ok()?;
    stream.read_exact(&mut header[count..]).ok()?;
    let mut files: Vec<_> = fds[..files]
        .iter()
        // SAFETY: these descriptors have just come in and are nobody else's.
        .map(|fd| unsafe { File::from_raw_fd(*fd) })
        .collect();
    let is_only = files.len() == 1;
    Some(files.pop().filter(|_| is_only))
}

fn by_the_book(request: u32, flags: u32, payload: &[u8]) -> Answer {
    match FrontendReq::try_from(request).unwrap() {
        FrontendReq::GET_QUEUE_NUM => Answer::Number(1),
        FrontendReq::GET_STATUS => Answer::Number(0xff),
        // The space is as long as asked for, and its bytes count up.
        FrontendReq::GET_CONFIG => {
            let bytes = (0..payload.len() - 12).map(|i| i as u8);
            Answer::Payload(payload[..12].iter().copied().chain(bytes).collect())
        }
        FrontendReq::GET_VRING_BASE | FrontendReq::SET_LOG_BASE => {
            Answer::Payload(payload.to_vec())
        }
        _ if flags & NEED_REPLY != 0 => Answer::Number(0),
        _ => Answer::Silence,
    }
}

fn reply(request: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, 1 | 1 << 2, payload.len() as u32] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}
