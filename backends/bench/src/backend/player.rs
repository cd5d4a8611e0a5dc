//! One connection to a frontend: waits, takes messages, and sends what the script leaves of the
//! answers.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::{Connection, Deadline, Header, Message, Payload, VERSION, WireError};

use super::history::{Attached, Milestone, Seen};
use super::scene::Scene;
use super::script::Act;
use super::session::{Reply, Session, refusal};

/// How often is looked for what nobody tells.
const TICK: Duration = Duration::from_millis(20);
/// How long after the start of a ring without a request the backend asks its question.
const SETTLED: Duration = Duration::from_millis(200);
/// How long a message may take once it has begun.
const MESSAGE: Duration = Duration::from_secs(5);

/// When a connection has been served for long enough.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far the frontend should come.
    pub goal: Milestone,
    /// How long to stay then.
    pub linger: Duration,
    /// How long nothing may happen.
    pub idle: Duration,
    pub total: Duration,
}

/// Why serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The frontend hung up.
    Closed,
    /// The script hung up.
    HungUp,
    /// It was long enough.
    Over,
}

pub struct Player<'a, 'b> {
    connection: Connection,
    scene: &'a mut Scene<'b>,
    session: Session,
    last: Instant,
}

impl<'a, 'b> Player<'a, 'b> {
    pub fn new(stream: UnixStream, scene: &'a mut Scene<'b>) -> Self {
        scene.history.connected();
        scene.log.event("the frontend is connected");
        Self {
            connection: Connection::to_frontend(stream),
            scene,
            session: Session::default(),
            last: Instant::now(),
        }
    }

    /// The frontend is about to be asked to end.
    pub fn dismiss(&mut self) {
        self.scene.history.dismissed();
    }

    /// It has not ended.
    pub fn outlived(&mut self) {
        self.scene.history.outlived();
    }

    /// Serves until there is reason to end. `is_alive` is asked all the time.
    pub fn serve(&mut self, limits: &Limits, mut is_alive: impl FnMut() -> bool) -> End {
        let begun = Instant::now();
        let mut reached = None;
        self.last = begun;
        loop {
            if let Err(end) = self.step() {
                return end;
            }
            self.ask();
            if self.scene.history.milestone() >= limits.goal {
                reached.get_or_insert_with(Instant::now);
            }
            let is_reached = reached.is_some_and(|at| at.elapsed() >= limits.linger);
            let is_idle = self.last.elapsed() >= limits.idle;
            if is_reached || is_idle || begun.elapsed() >= limits.total || !is_alive() {
                return End::Over;
            }
        }
    }

    /// Waits for something, but not for long.
    fn step(&mut self) -> Result<(), End> {
        let (is_message, is_channel, kicked) = self.wait();
        if is_message {
            self.last = Instant::now();
            self.receive()?;
        }
        if is_channel {
            self.session.hear(self.scene);
        }
        self.session.process(&kicked, self.scene);
        if !kicked.is_empty() {
            self.last = Instant::now();
        }
        Ok(())
    }

    /// What is ready: the connection, the channel, kicks.
    fn wait(&self) -> (bool, bool, Vec<u32>) {
        let mut fds = vec![PollFd::new(&self.connection, PollFlags::IN)];
        let kicks: Vec<_> = self.session.kicks().collect();
        fds.extend(
            kicks
                .iter()
                .map(|(_, kick)| PollFd::new(kick, PollFlags::IN)),
        );
        fds.extend(
            self.session
                .channel()
                .map(|it| PollFd::new(it, PollFlags::IN)),
        );
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.as_nanos() as _,
        };
        if poll(&mut fds, Some(&timeout)).is_err() {
            return (false, false, Vec::new());
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_kicked = |((index, _), ready): (&(u32, _), &bool)| ready.then_some(*index);
        let kicked = kicks.iter().zip(&ready[1..]).filter_map(is_kicked);
        let is_channel = ready[1 + kicks.len()..].first() == Some(&true);
        (ready[0], is_channel, kicked.collect())
    }

    /// Asks the script's question, once the driver is there.
    fn ask(&mut self) {
        let Some(question) = self.scene.script.question else {
            return;
        };
        let milestone = self.scene.history.milestone();
        let is_settled = milestone == Milestone::Started && self.last.elapsed() >= SETTLED;
        let is_used = milestone == Milestone::Completed;
        let is_time = (is_settled || is_used) && !self.scene.history.has_asked();
        if is_time {
            self.session.ask(question, self.scene);
        }
    }

    fn receive(&mut self) -> Result<(), End> {
        // One of another version ends the connection, and is to be seen before.
        if let Ok(Some(header)) = self.connection.header()
            && header.version() != VERSION
        {
            self.note(header, &[], &[]);
        }
        let message = match self.connection.receive(&Deadline::after(MESSAGE)) {
            Ok(message) => message,
            Err(error) => return Err(self.closed(&error)),
        };
        self.note(message.header, &message.payload, &message.files);
        self.handle(message)
    }

    fn note(&mut self, header: Header, payload: &[u8], files: &[File]) {
        self.scene.log.sent(header, payload, files.len());
        self.scene.history.note(Seen {
            header,
            payload: payload.to_vec(),
            files: files.iter().map(Attached::of).collect(),
            connection: self.scene.history.connections(),
            before: self.session.state().clone(),
        });
    }

    fn closed(&mut self, error: &WireError) -> End {
        self.scene.log.event(error.to_string());
        self.scene.history.closed_by_frontend();
        End::Closed
    }

    fn handle(&mut self, mut message: Message) -> Result<(), End> {
        let request = message.header.request;
        let act = self.act_at(request);
        if act == Some(Act::HangUp) {
            self.scene.history.act();
            return Err(self.hang_up());
        }
        let reply = self.session.answer(&mut message, self.scene);
        let has_acks = self.session.state().has_protocol(Protocol::REPLY_ACK);
        let needs_ack = message.header.needs_reply() && has_acks;
        let (payload, file) = match reply {
            Reply::Payload(payload, file) => (payload, file),
            Reply::Done(done) if needs_ack => {
                if let Err(why) = &done {
                    self.scene.log.event(format!("refused: {why}"));
                }
                (u64::from(done.is_err()).to_bytes(), None)
            }
            _ => return Ok(()),
        };
        self.send(&message, payload, file, act)
    }

    /// What the script has for this message.
    fn act_at(&self, request: u32) -> Option<Act> {
        let (wanted, act) = self.scene.script.message?;
        let is_it = request == wanted as u32 && !self.scene.history.has_acted();
        is_it.then_some(act)
    }

    fn hang_up(&self) -> End {
        self.scene.log.event("the backend hangs up");
        End::HungUp
    }

    fn send(
        &mut self,
        message: &Message,
        mut payload: Vec<u8>,
        file: Option<File>,
        act: Option<Act>,
    ) -> Result<(), End> {
        let request = message.header;
        if act.is_some() {
            self.scene.history.act();
        }
        match act {
            Some(Act::Silence) => return Ok(()),
            Some(Act::Late(time)) => std::thread::sleep(time),
            Some(Act::Refuse) => payload = refusal(request.request),
            _ => {}
        }
        let header = request.reply(payload.len());
        let bytes = match act {
            Some(Act::Damaged(damage)) => damage.bytes(header, &payload),
            Some(Act::HangUpWithin) => header.to_bytes()[..5].to_vec(),
            _ => [&header.to_bytes()[..], &payload].concat(),
        };
        match act {
            Some(act) => self.scene.log.event(format!("the reply: {act:?}")),
            None => self.scene.log.received(&Message {
                header,
                payload,
                files: Vec::new(),
            }),
        }
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        let sent = self
            .connection
            .send_bytes(&bytes, &files, &Deadline::after(MESSAGE));
        if let Err(error) = sent {
            return Err(self.closed(&error));
        }
        match act {
            Some(Act::HangUpWithin) => Err(self.hang_up()),
            _ => Ok(()),
        }
    }
}
