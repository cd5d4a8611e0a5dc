//! A frontend that somebody else starts.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host_io::sockets;

use super::error::SourceError;
use super::history::History;
use super::player::{End, Limits, Player};
use super::scene::Scene;
use crate::driver::wait_readable;

/// Where it connects, and until when it is looked at.
#[derive(Clone, Debug)]
pub struct Listen {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    tell: fn(&str),
}

/// How long a frontend may be away before it has left for good.
pub const AWAY: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

impl Listen {
    /// Whoever wants to see the end of it sets `stop`. The user is told by `tell` who comes and
    /// who leaves.
    pub fn new(path: PathBuf, stop: Arc<AtomicBool>, tell: fn(&str)) -> Self {
        Self { path, stop, tell }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Serves the first frontend that sends something, and the connections that it makes again,
    /// until it has been away for [`AWAY`] or there is a stop.
    pub(super) fn serve(&self, scene: &mut Scene, limits: &Limits) -> Result<(), SourceError> {
        let path = self.path.display().to_string();
        let bound = sockets::bind(&self.path);
        let (listener, _file) = bound.map_err(|source| SourceError::Listen {
            path: path.clone(),
            source,
        })?;
        listener.set_nonblocking(true)?;
        (self.tell)(&format!("waiting for a frontend on {path}"));
        let mut arrivals = Arrivals::new(listener, self.tell);
        while let Some(stream) = arrivals.first(|| self.is_stopped())? {
            if scene.history.seen().is_empty() {
                // Those that only looked whether somebody listens are none of it.
                scene.history = History::default();
            }
            let end = self.serve_one(stream, scene, limits, &mut arrivals);
            if end == End::Over {
                break;
            }
            let has_spoken = !scene.history.seen().is_empty();
            arrivals.left(has_spoken);
        }
        if scene.history.seen().is_empty() {
            return Err(SourceError::NobodyCame { path });
        }
        Ok(())
    }

    fn serve_one(
        &self,
        stream: UnixStream,
        scene: &mut Scene,
        limits: &Limits,
        arrivals: &mut Arrivals,
    ) -> End {
        Player::new(stream, scene).serve(limits, || {
            arrivals.take();
            !self.is_stopped()
        })
    }
}

/// Who connects. One process is looked at, and others are turned away.
struct Arrivals {
    listener: UnixListener,
    tell: fn(&str),
    /// The process that was served first; `None` inside where its number cannot be known.
    known: Option<Option<u32>>,
    next: Vec<UnixStream>,
    /// Since when nobody is there who was there before.
    away: Option<Instant>,
}

impl Arrivals {
    fn new(listener: UnixListener, tell: fn(&str)) -> Self {
        Self {
            listener,
            tell,
            known: None,
            next: Vec::new(),
            away: None,
        }
    }

    /// Takes in those that wait, of whom another process is turned away: it would wait for ever
    /// for an answer. A host that refuses shows it where one is waited for.
    fn take(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let process = sockets::peer(&stream);
            if self.known.is_none_or(|known| known == process) {
                self.next.push(stream);
                continue;
            }
            (self.tell)(&format!(
                "{} is turned away: one frontend is looked at at a time",
                name(process)
            ));
        }
    }

    /// The next connection; `None` at a stop, and when whoever was there is away for too long.
    fn first(&mut self, is_stopped: impl Fn() -> bool) -> io::Result<Option<UnixStream>> {
        loop {
            self.take();
            if !self.next.is_empty() {
                let stream = self.next.remove(0);
                self.greet(&stream);
                return Ok(Some(stream));
            }
            let is_gone = self.away.is_some_and(|since| since.elapsed() >= AWAY);
            if is_gone || is_stopped() {
                return Ok(None);
            }
            wait_readable(&self.listener, LOOK)?;
        }
    }

    fn greet(&mut self, stream: &UnixStream) {
        let process = sockets::peer(stream);
        if self.known.is_none() {
            (self.tell)(&format!(
                "{} is looked at until it leaves, or until Ctrl-C",
                name(process)
            ));
        }
        self.known = Some(process);
    }

    /// A connection has ended. Where nothing came on it, whoever comes next is the frontend.
    fn left(&mut self, has_spoken: bool) {
        if has_spoken {
            self.away = Some(Instant::now());
        } else {
            (self.tell)("it left without a message; waiting for another");
            self.known = None;
        }
    }
}

fn name(process: Option<u32>) -> String {
    process.map_or("a process".into(), |number| format!("process {number}"))
}
