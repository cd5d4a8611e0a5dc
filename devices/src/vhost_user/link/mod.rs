//! Whether there is a backend: how it is reached, when it is tried again, and the session
//! with the one that is there.
//!
//! A [`Link`] tells its owner by an [`Event`] when a backend is there, when it is lost, and
//! when it is not waited for any more. It does not know what the driver has set up.

pub mod backend_status;
pub mod connect;
pub mod connector;
pub mod listen;
pub mod reach;
pub mod reconnect;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host_io::errors::chain;

use crate::deadline::Deadline;
use crate::vhost_user::Options;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::events::{Events, Source};
use crate::vhost_user::profile::Profile;
use crate::vhost_user::session::Session;
use crate::vhost_user::session::channel::Channel;
use crate::vhost_user::session::negotiate;
use crate::vhost_user::session::shared_memory::SharedMemory;
use backend_status::BackendStatus;
use connector::Connector;
use reconnect::ReconnectTimer;

/// What has become of the backend.
pub enum Event {
    /// One has come and agreed. It is [kept](Link::keep) or [abandoned](Link::abandon), once
    /// it has been told what the driver has set up.
    Up(Box<Opened>),
    Down(Down),
}

/// A new session, and the configuration space that was read in it.
pub struct Opened {
    pub session: Session,
    pub config: Vec<u8>,
}

/// Why there is no backend.
pub enum Down {
    /// The connection was lost, and another backend is waited for. `is_gone` says that the
    /// lost one does nothing any more.
    Lost { error: Error, is_gone: bool },
    /// One that came did not get as far as to serve; another is waited for. The next one
    /// may do if it `is_passing`, otherwise this one was of the wrong kind.
    Rejected { error: Error, is_passing: bool },
    /// None is waited for any more.
    GaveUp(Error),
}

enum State {
    Up(Session),
    /// The backend is waited for. There is a channel while a backend has
    /// accepted the connection but has yet to answer.
    Away(Option<Channel>),
    /// Nobody looks for a backend until [`Link::connect`].
    Disconnected,
    GivenUp,
}

/// The link to a device's backend, whichever that is.
pub struct Link {
    options: Arc<Options>,
    profile: Profile,
    connector: Box<dyn Connector>,
    status: Arc<BackendStatus>,
    timer: ReconnectTimer,
    /// Where descriptors are watched: the timer, and those of each connection.
    events: Arc<Events>,
    /// Where backends have files mapped, if they do so at all.
    shared_memory: Option<Arc<SharedMemory>>,
    state: State,
}

impl Link {
    /// Waits for the first backend, and returns the configuration space read from it too.
    pub fn open(
        options: Arc<Options>,
        profile: Profile,
        mut connector: Box<dyn Connector>,
        events: Arc<Events>,
    ) -> Result<(Self, Vec<u8>), Problem> {
        let (mut session, config) = open_first(&options, &profile, connector.as_mut())?;
        let timer = ReconnectTimer::new(options.reconnect).map_err(Problem::Events)?;
        events
            .watch(&timer, Source::Timer)
            .and_then(|()| events.watch(&session, Source::Backend))
            .map_err(Problem::Events)?;
        negotiate::log(&options.id, options.device_type, session.agreement());
        watch_beside(&events, &mut session)?;
        let is_supervised = connector.is_supervisor();
        let status = BackendStatus::new(options.address.to_string(), is_supervised);
        status.connected(process(connector.as_ref(), &session));
        let status = Arc::new(status);
        let link = Self {
            options,
            profile,
            connector,
            status,
            timer,
            events,
            shared_memory: None,
            state: State::Up(session),
        };
        Ok((link, config))
    }

    /// The process behind the device.
    pub fn status(&self) -> &Arc<BackendStatus> {
        &self.status
    }

    /// The session with the backend that is there.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Up(session) => Some(session),
            State::Away(_) | State::Disconnected | State::GivenUp => None,
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether none is there, and none is waited for.
    pub fn is_given_up(&self) -> bool {
        matches!(self.state, State::GivenUp)
    }

    /// Whether backends are started and ended from here.
    pub fn is_supervised(&self) -> bool {
        self.connector.is_supervisor()
    }

    /// Gives this backend, and each that follows, the memory to have its files mapped in.
    pub fn give_shared_memory(&mut self, memory: Arc<SharedMemory>) {
        if let Some(session) = self.session()
            && let Some(requests) = session.requests()
        {
            requests.give_shared_memory(Some(memory.clone()));
        }
        self.shared_memory = Some(memory);
    }

    /// `problem` as an error of this device.
    pub fn error(&self, problem: Problem) -> Error {
        Error {
            id: self.options.id.clone(),
            address: self.options.address.clone(),
            problem,
        }
    }

    /// The connection is of no more use.
    pub fn lose(&mut self, problem: Problem) -> Down {
        // A backend that is out of step or late may still be at work.
        let is_gone = problem.is_closed() || self.connector.kill();
        self.disconnect(problem, is_gone)
    }

    /// Has another process take the backend's place, as soon as it can. The old one has
    /// `stopped` its rings, or is killed.
    pub fn replace(&mut self, stopped: Result<(), Problem>) -> Down {
        self.timer.restart();
        match stopped {
            Ok(()) => {
                self.connector.replace();
                self.disconnect(Problem::Replaced, true)
            }
            Err(problem) => self.lose(problem),
        }
    }

    /// Lets the backend go, and looks for none until [`connect`](Self::connect). It has `stopped`
    /// its rings, or may still be at work unless it is killed.
    pub fn let_go(&mut self, stopped: Result<(), Problem>) -> Down {
        let (problem, is_gone) = match stopped {
            Ok(()) => {
                self.connector.replace();
                (Problem::Disconnected, true)
            }
            Err(problem) => {
                let is_gone = problem.is_closed() || self.connector.kill();
                (problem, is_gone)
            }
        };
        self.state = State::Disconnected;
        self.timer.disarm();
        let error = self.error(problem);
        self.status.away(chain(&error));
        Down::Lost { error, is_gone }
    }

    /// Looks for a backend again.
    pub fn connect(&mut self) -> Result<(), Problem> {
        if !matches!(self.state, State::Disconnected) {
            return Err(Problem::NotDisconnected);
        }
        self.timer.restart();
        self.timer.arm().map_err(Problem::Events)?;
        self.state = State::Away(None);
        Ok(())
    }

    /// The backend has been told all. Returns for how long there was none.
    pub fn keep(&mut self, session: Session) -> Duration {
        let pid = process(self.connector.as_ref(), &session);
        self.state = State::Up(session);
        self.status.connected(pid);
        let absent = self.timer.absent();
        self.timer.end();
        absent
    }

    /// The connection was lost while the backend was told.
    pub fn abandon(&mut self, session: Session, problem: Problem) -> Down {
        // A backend that hangs over the driver's setup would hang over it each time.
        let is_gone = problem.is_closed();
        if !is_gone {
            self.connector.kill();
        }
        drop(session);
        self.disconnect(problem, is_gone)
    }

    /// The connection is readable: the backend is gone or out of step, or, when
    /// it was away, has given its first sign of life.
    pub fn on_readable(&mut self, deadline: &Deadline) -> Option<Event> {
        let problem = match &mut self.state {
            State::Up(session) => session.check().err()?,
            State::Away(asked) => {
                let channel = asked.take()?;
                return Some(self.finish_handshake(channel, deadline));
            }
            State::Disconnected | State::GivenUp => return None,
        };
        Some(Event::Down(self.lose(problem)))
    }

    /// It is time for the next attempt, or too late for the last one.
    pub fn on_timer(&mut self, deadline: &Deadline) -> Option<Down> {
        if !matches!(self.state, State::Away(_)) {
            self.timer.disarm();
            return None;
        }
        self.state = State::Away(None);
        if self.timer.is_over() {
            let waited = self.timer.absent();
            return Some(self.give_up(Problem::NotBack { waited }));
        }
        self.try_connect(deadline)
    }

    /// A backend has connected. Looked at only when there is none and none is
    /// being asked: the others wait in the kernel's queue.
    pub fn on_arrival(&mut self, deadline: &Deadline) -> Option<Down> {
        match self.state {
            State::Away(None) => self.try_connect(deadline),
            _ => None,
        }
    }

    /// The link is cut.
    fn disconnect(&mut self, problem: Problem, is_gone: bool) -> Down {
        let waits = self.timer.is_on() || matches!(problem, Problem::Replaced);
        // Dropping what was there closes the sockets.
        self.state = if waits {
            State::Away(None)
        } else {
            State::GivenUp
        };
        if waits && let Err(error) = self.timer.arm() {
            return self.give_up(Problem::Events(error));
        }
        let error = self.error(problem);
        self.status.away(chain(&error));
        match waits {
            true => Down::Lost { error, is_gone },
            false => Down::GaveUp(error),
        }
    }

    /// Nobody waits for the backend any more.
    fn give_up(&mut self, problem: Problem) -> Down {
        self.state = State::GivenUp;
        self.timer.disarm();
        let error = self.error(problem);
        self.status.away(chain(&error));
        Down::GaveUp(error)
    }

    /// Looks for a backend once.
    fn try_connect(&mut self, deadline: &Deadline) -> Option<Down> {
        let armed = match self.start_handshake(deadline) {
            Ok(channel) => {
                self.state = State::Away(Some(channel));
                self.timer.arm_after(self.options.deadline)
            }
            Err(problem) => {
                let problem = explain(self.connector.as_mut(), problem);
                tracing::debug!(device = self.options.id, %problem, "the backend is not back yet");
                if !problem.may_pass() {
                    self.status.failed(chain(&problem));
                }
                self.wait_for_another(problem.may_pass())
            }
        };
        let error = armed.err()?;
        Some(self.give_up(Problem::Events(error)))
    }

    /// Waits to look again: until one connects, where that can be waited for.
    /// One that connects and does not last is only looked for after a pause.
    fn wait_for_another(&mut self, nobody_came: bool) -> io::Result<()> {
        match self.connector.arrivals() {
            Some(fd) if nobody_came => {
                self.events.watch_once(&fd, Source::Arrival)?;
                self.timer.arm_at_limit()
            }
            _ => self.timer.arm().map(drop),
        }
    }

    /// Connects and asks the first question, without waiting for an answer.
    fn start_handshake(&mut self, deadline: &Deadline) -> Result<Channel, Problem> {
        let stream = self.connector.connect()?;
        let mut channel = Channel::new(stream);
        negotiate::start_handshake(&mut channel, deadline)?;
        let watched = self.events.watch(&channel, Source::Backend);
        watched.map_err(Problem::Events)?;
        Ok(channel)
    }

    /// A backend has answered the first question.
    fn finish_handshake(&mut self, channel: Channel, deadline: &Deadline) -> Event {
        let memory = self.shared_memory.as_ref();
        if let Some(memory) = memory {
            memory.inherit();
        }
        let opened = Session::open(channel, &self.options, &self.profile, memory, deadline)
            .and_then(|(mut session, config)| {
                watch_beside(&self.events, &mut session)?;
                Ok(Opened { session, config })
            });
        match opened {
            Ok(opened) => Event::Up(Box::new(opened)),
            Err(problem) => Event::Down(self.reject(problem, deadline)),
        }
    }

    /// The process that answered did not become this device's backend.
    fn reject(&mut self, problem: Problem, deadline: &Deadline) -> Down {
        let left = deadline.left().unwrap_or_default();
        let spent = deadline.budget().saturating_sub(left);
        // A backend that is slow must not take all of this thread's time.
        let armed = self
            .timer
            .arm()
            .and_then(|pause| self.timer.arm_after(pause.max(2 * spent)));
        if let Err(error) = armed {
            return self.give_up(Problem::Events(error));
        }
        let is_passing = problem.ends_connection();
        let problem = explain(self.connector.as_mut(), problem);
        let error = self.error(problem);
        self.status.failed(chain(&error));
        Down::Rejected { error, is_passing }
    }
}

/// The process that serves, where that is known.
fn process(connector: &dyn Connector, session: &Session) -> Option<u32> {
    connector.process().or_else(|| session.peer())
}

fn open_first(
    options: &Options,
    profile: &Profile,
    connector: &mut dyn Connector,
) -> Result<(Session, Vec<u8>), Problem> {
    let stream = connector::wait(connector, options.connect_deadline)?;
    let mut channel = Channel::new(stream);
    let deadline = Deadline::after(options.deadline);
    negotiate::start_handshake(&mut channel, &deadline)
        .map_err(Problem::from)
        .and_then(|()| Session::open(channel, options, profile, None, &deadline))
        .map_err(|problem| explain(connector, problem))
}

/// Why a backend that never served is gone.
fn explain(connector: &mut dyn Connector, problem: Problem) -> Problem {
    if !problem.is_closed() {
        return problem;
    }
    connector.exit_report().unwrap_or(problem)
}

/// Watches the backend's descriptors other than the connection itself.
fn watch_beside(events: &Events, session: &mut Session) -> Result<(), Problem> {
    if let Some(errors) = session.ring_errors() {
        let watched = events.watch(errors, Source::RingErrors);
        watched.map_err(Problem::Events)?;
    }
    let Some(requests) = session.requests() else {
        return Ok(());
    };
    let watched = events.watch(requests, Source::Requests);
    watched
        .and_then(|()| events.watch(requests.news(), Source::Requests))
        .map_err(Problem::Events)
}
