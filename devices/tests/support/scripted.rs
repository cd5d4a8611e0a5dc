//! A backend that answers by the book, but for what a test tells it to do
//! instead.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vhost::vhost_user::message::{BackendReq, FrontendReq};
use vhost_user_wire::{Connection, Deadline, Header, Message, Payload, WireError};

use super::requests::Request;

/// VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
pub const FEATURES: u64 = 1 << 32 | 1 << 30;
pub const MQ: u64 = 1;
pub const REPLY_ACK: u64 = 1 << 3;
pub const CONFIG: u64 = 1 << 9;

/// A test has its own deadlines, and ends before this.
const PATIENCE: Duration = Duration::from_secs(60);

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
                let received = serve(stream, &life, &asking, &signs);
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
        let requests = Connection::to_frontend(self.requests());
        let header = Header::request(request, 0);
        requests.send_now(header, &[]).unwrap();
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
    stream: UnixStream,
    life: &Life,
    requests: &Mutex<Option<UnixStream>>,
    errors: &Mutex<HashMap<u64, File>>,
) -> Vec<Received> {
    let mut connection = Connection::to_frontend(stream);
    let mut received = Vec::new();
    while let Ok(message) = connection.receive(&Deadline::after(PATIENCE)) {
        let header = message.header;
        let request = FrontendReq::try_from(header.request).unwrap();
        let inode = match &message.files[..] {
            [file] => Some(file.metadata().unwrap().ino()),
            _ => None,
        };
        received.push(Received {
            request,
            payload: message.payload.clone(),
            inode,
        });
        thread::sleep(Duration::from_millis(life.pace.load(Ordering::Relaxed)));
        let answer = choose(life, &message, requests);
        keep(request, message, requests, errors);
        let sent = match answer {
            Answer::Payload(payload) => reply(&connection, header, &payload, None),
            Answer::Number(number) => reply(&connection, header, &number.to_bytes(), None),
            Answer::File(payload, file) => reply(&connection, header, &payload, Some(&file)),
            Answer::Raw(bytes) => connection.send_bytes(&bytes, &[], &Deadline::after(PATIENCE)),
            Answer::Silence => Ok(()),
            Answer::HangUp => break,
            Answer::After(_) | Answer::Flood(_) | Answer::Late(_) => {
                unreachable!("no answers in themselves")
            }
        };
        // The frontend may have given up already.
        if sent.is_err() {
            break;
        }
    }
    received
}

/// What this life answers to the message, having done what comes before.
fn choose(life: &Life, message: &Message, requests: &Mutex<Option<UnixStream>>) -> Answer {
    match life.script.get(&message.header.request).cloned() {
        Some(Answer::Late(pause)) => thread::sleep(pause),
        Some(Answer::After(wishes)) => have_done(&wishes, requests),
        Some(Answer::Flood(wishes)) => {
            flood(&wishes, requests);
            return Answer::HangUp;
        }
        Some(answer) => return answer,
        None => {}
    }
    by_the_book(message)
}

/// Keeps the files that are used later.
fn keep(
    request: FrontendReq,
    mut message: Message,
    requests: &Mutex<Option<UnixStream>>,
    errors: &Mutex<HashMap<u64, File>>,
) {
    match request {
        FrontendReq::SET_BACKEND_REQ_FD => {
            let file = message.take_file().ok();
            *requests.lock().unwrap() = file.map(|file| OwnedFd::from(file).into());
        }
        FrontendReq::SET_VRING_ERR => {
            let queue = message.body().unwrap();
            errors
                .lock()
                .unwrap()
                .insert(queue, message.take_file().unwrap());
        }
        _ => {}
    }
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

fn by_the_book(message: &Message) -> Answer {
    let payload = &message.payload;
    match FrontendReq::try_from(message.header.request).unwrap() {
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
        _ if message.header.needs_reply() => Answer::Number(0),
        _ => Answer::Silence,
    }
}

fn reply(
    connection: &Connection,
    to: Header,
    payload: &[u8],
    file: Option<&File>,
) -> Result<(), WireError> {
    let files: Vec<_> = file.map(AsFd::as_fd).into_iter().collect();
    let header = to.reply(payload.len());
    connection.send(header, payload, &files, &Deadline::after(PATIENCE))
}
