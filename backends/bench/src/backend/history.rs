//! What a frontend did, from its first connection to its last.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use vhost::vhost_user::message::FrontendReq;
use vhost_user_wire::{Header, Payload};

use super::state::State;
use super::trouble::Trouble;

/// A file that came with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// In bytes.
    pub size: u64,
    /// The same for each descriptor of one file.
    pub identity: (u64, u64),
    /// The kernel's number of an eventfd.
    pub number: Option<u64>,
    /// It has pages that can be mapped, as a socket and an eventfd do not.
    pub is_regular: bool,
}

impl Attached {
    pub fn of(file: &File) -> Self {
        let metadata = file.metadata().ok();
        Self {
            size: metadata.as_ref().map_or(0, MetadataExt::size),
            identity: metadata.as_ref().map_or((0, 0), |it| (it.dev(), it.ino())),
            number: event_number(file),
            is_regular: metadata.is_some_and(|it| it.is_file()),
        }
    }
}

/// All eventfds have one inode.
fn event_number(file: &File) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mut lines = info.lines();
    let number = lines.find_map(|line| line.strip_prefix("eventfd-id:"))?;
    number.trim().parse().ok()
}

/// A message of the frontend's.
#[derive(Clone, Debug)]
pub struct Seen {
    pub header: Header,
    pub payload: Vec<u8>,
    pub files: Vec<Attached>,
    /// Connections are numbered from 1.
    pub connection: usize,
    /// The connection before this message.
    pub before: State,
}

impl Seen {
    pub fn is(&self, request: FrontendReq) -> bool {
        self.header.request == request as u32
    }

    pub fn is_one_of(&self, requests: &[FrontendReq]) -> bool {
        requests.iter().any(|request| self.is(*request))
    }

    /// The payload, where it is long enough for that.
    pub fn body<T: Payload>(&self) -> Option<T> {
        T::decode(&self.payload).ok()
    }
}

/// What the frontend said on the backend's own channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which request it answers.
    pub request: u32,
    pub flags: u32,
    /// Where the payload is a number.
    pub number: Option<u64>,
}

/// How far a frontend has come on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    #[default]
    Connected,
    /// It has said which features it wants.
    Negotiated,
    /// It has shared guest memory.
    Shared,
    /// A ring is started.
    Started,
    /// A request was completed.
    Completed,
    /// No frontend comes there.
    Never,
}

/// What happened, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    seen: Vec<Seen>,
    connections: usize,
    troubles: BTreeMap<Trouble, String>,
    /// Starts of rings, and those of them behind which a kick came.
    starts: BTreeMap<(usize, u32), bool>,
    completed: u64,
    milestone: Milestone,
    answers: Vec<Answer>,
    asked: u64,
    has_channel_closed: bool,
    has_acted: bool,
    inflight: Vec<(Vec<u8>, Option<Attached>)>,
    closed_by_frontend: bool,
    is_dismissed: bool,
    is_outlived: bool,
}

impl History {
    pub fn connected(&mut self) {
        self.connections += 1;
        self.milestone = Milestone::Connected;
        self.closed_by_frontend = false;
    }

    pub fn note(&mut self, seen: Seen) {
        if seen.is(FrontendReq::SET_FEATURES) {
            self.reach(Milestone::Negotiated);
        }
        if seen.is_one_of(&[FrontendReq::SET_MEM_TABLE, FrontendReq::ADD_MEM_REG]) {
            self.reach(Milestone::Shared);
        }
        self.seen.push(seen);
    }

    fn reach(&mut self, milestone: Milestone) {
        self.milestone = self.milestone.max(milestone);
    }

    /// How far the last connection has come.
    pub fn milestone(&self) -> Milestone {
        self.milestone
    }

    /// The first of a kind is what counts.
    pub fn trouble(&mut self, trouble: Trouble, text: impl Into<String>) {
        self.troubles.entry(trouble).or_insert_with(|| text.into());
    }

    pub fn started(&mut self, queue: u32) {
        self.reach(Milestone::Started);
        let start = (self.connections, queue);
        self.starts.entry(start).or_insert(false);
    }

    pub fn kicked(&mut self, queue: u32) {
        self.starts.insert((self.connections, queue), true);
    }

    pub fn complete(&mut self) {
        self.completed += 1;
        self.reach(Milestone::Completed);
    }

    pub fn asked(&mut self) {
        self.asked += 1;
    }

    pub fn answered(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// A frontend that ends closes everything, which says nothing of the channel.
    pub fn channel_closed(&mut self) {
        self.has_channel_closed |= !self.is_dismissed;
    }

    /// The script has had its effect.
    pub fn act(&mut self) {
        self.has_acted = true;
    }

    pub fn gave_inflight(&mut self, payload: Vec<u8>, file: Option<Attached>) {
        self.inflight.push((payload, file));
    }

    pub fn closed_by_frontend(&mut self) {
        self.closed_by_frontend = true;
    }

    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    pub fn has(&self, request: FrontendReq) -> bool {
        self.seen.iter().any(|seen| seen.is(request))
    }

    pub fn connections(&self) -> usize {
        self.connections
    }

    pub fn troubles(&self) -> &BTreeMap<Trouble, String> {
        &self.troubles
    }

    /// Queues that were started, each with whether a kick came.
    pub fn starts(&self) -> impl Iterator<Item = (u32, bool)> {
        self.starts
            .iter()
            .map(|((_, queue), kicked)| (*queue, *kicked))
    }

    /// Requests that were completed.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Whether the backend has sent a request of its own.
    pub fn has_asked(&self) -> bool {
        self.asked > 0
    }

    pub fn has_channel_closed(&self) -> bool {
        self.has_channel_closed
    }

    pub fn has_acted(&self) -> bool {
        self.has_acted
    }

    /// Replies to GET_INFLIGHT_FD: payloads, and their files.
    pub fn inflight(&self) -> &[(Vec<u8>, Option<Attached>)] {
        &self.inflight
    }

    /// The serving has been long enough: what comes now is the frontend's end.
    pub fn dismissed(&mut self) {
        self.is_dismissed = true;
    }

    /// The frontend did not end when it was asked to.
    pub fn outlived(&mut self) {
        self.is_outlived = true;
    }

    pub fn is_outlived(&self) -> bool {
        self.is_outlived
    }

    /// Whether the frontend ended its last connection before it was asked to end itself.
    pub fn is_closed_early(&self) -> bool {
        self.closed_by_frontend && !self.is_dismissed
    }

    /// Whether the frontend left without a word about its rings.
    pub fn is_cut_short(&self) -> bool {
        let on_last = |seen: &&Seen| seen.connection == self.connections;
        let mut last = self.seen.iter().filter(on_last);
        self.is_closed_early() && !last.any(|seen| seen.is(FrontendReq::GET_VRING_BASE))
    }

    /// Whether a ring was started on a connection, which are numbered from 1.
    pub fn is_started_on(&self, connection: usize) -> bool {
        let mut starts = self.starts.keys();
        starts.any(|(started_on, _)| *started_on == connection)
    }

    /// The last message's connection and name.
    pub fn last_request(&self) -> (usize, String) {
        let last = self.seen.last();
        last.map_or((0, "none".into()), |seen| {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            (seen.connection, name.to_string())
        })
    }
}
