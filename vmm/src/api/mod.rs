//! The control API: HTTP/1.1 and JSON on a Unix socket (`--api PATH`).
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | vCPUs, devices, their backends, counters |
//! | `GET /v1/explain`, `/v1/devices/ID/explain` | queues and backends as they are, and what is wrong |
//! | `POST /v1/devices/ID/restart` | when another process serves the device |
//! | `POST /v1/debugger/detach` | when the debugger is gone and the guest runs |
//! | `POST /v1/dump?file=PATH` | when RAM and registers are in this file |
//! | `POST /v1/pause`, `/v1/resume` | when all vCPUs have stopped, or may resume |
//! | `POST /v1/reset` | when the main thread has been told |
//! | `POST /v1/shutdown` | just before the machine ends |
//!
//! An error is an object with one member, `error`. One request a connection;
//! each client has a thread and a deadline, so that a silent one holds up nobody.

pub mod client;
mod commands;
mod dump;
mod explain;
mod http;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use host_io::sockets::{self, BindError, SocketFile};
use serde_json::Value;

use crate::control::Control;
use crate::power::PowerRequest;
use http::{Request, Status, problem};

/// How long a client may take to send its request, and to take the answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);
/// Clients at the same time.
const MAX_CLIENTS: usize = 16;
/// The pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("control API: cannot listen on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: BindError,
    },
    #[error("control API: cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Serves as long as it lives; the socket is removed with it.
pub struct Server {
    _file: SocketFile,
}

impl Server {
    /// Serves for as long as there is `control`.
    pub fn start(path: &Path, control: &Arc<Control>) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            path: path.to_owned(),
            source,
        };
        let (listener, file) = sockets::bind(path).map_err(failed)?;
        thread::Builder::new()
            .name("api".into())
            .spawn({
                let control = Arc::downgrade(control);
                move || accept(&listener, &control)
            })
            .map_err(Error::Thread)?;
        Ok(Self { _file: file })
    }
}

/// Ends with the process: it waits for clients, but holds no part of the machine.
fn accept(listener: &UnixListener, control: &Weak<Control>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::debug!(%error, "control API: cannot accept a client");
                thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        let Some(control) = control.upgrade() else {
            return;
        };
        if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
            let answer = problem(format!("{MAX_CLIENTS} clients are being served; try again"));
            // Written without waiting: it is short and the socket's buffer empty.
            let _ = http::answer(&client, Status::Busy, &answer, Duration::ZERO);
            clients.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let served = clients.clone();
        let spawned = thread::Builder::new()
            .name("api client".into())
            .spawn(move || {
                serve(&client, &control);
                served.fetch_sub(1, Ordering::SeqCst);
            });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Answers one request.
fn serve(client: &UnixStream, control: &Control) {
    let (status, answer) = match http::receive(client, CLIENT_DEADLINE) {
        Ok(request) if is_shutdown(&request) => {
            // The process ends with the machine, and would not wait for the answer.
            answer_with(client, commands::shutdown());
            return control.power().request(PowerRequest::Off);
        }
        Ok(request) => route(&request, control),
        Err(error) => match error.status() {
            Some(status) => (status, problem(error.to_string())),
            // It left.
            None => return,
        },
    };
    answer_with(client, (status, answer));
}

fn is_shutdown(request: &Request) -> bool {
    (request.method.as_str(), request.path.as_str()) == ("POST", "/v1/shutdown")
}

fn answer_with(client: &UnixStream, (status, answer): (Status, Value)) {
    if let Err(error) = http::answer(client, status, &answer, CLIENT_DEADLINE) {
        tracing::debug!(%error, "control API: a client did not take its answer");
    }
}

fn route(request: &Request, control: &Control) -> (Status, Value) {
    let parts: Vec<&str> = request.path.split('/').skip(1).collect();
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["v1", "status"]) => (Status::Ok, commands::status(control)),
        ("GET", ["v1", "explain"]) => explain::all(control),
        ("GET", ["v1", "devices", id, "explain"]) => explain::one(control, &decode(id)),
        ("POST", ["v1", "devices", id, "restart"]) => commands::restart(control, &decode(id)),
        ("POST", ["v1", "debugger", "detach"]) => commands::detach(control),
        ("POST", ["v1", "dump"]) => dump::dump(control, &request.query),
        ("POST", ["v1", "pause"]) => commands::pause(control),
        ("POST", ["v1", "resume"]) => commands::resume(control),
        ("POST", ["v1", "reset"]) => commands::reset(control),
        ("POST", ["v1", "reload"]) => commands::reload(control),
        (_, ["v1", "status" | "explain"] | ["v1", "devices", _, "explain"]) => {
            wrong_method(request, "GET")
        }
        (_, ["v1", "devices", _, "restart"] | ["v1", "debugger", "detach"])
        | (
            _,
            [
                "v1",
                "dump" | "pause" | "resume" | "reset" | "reload" | "shutdown",
            ],
        ) => wrong_method(request, "POST"),
        _ => {
            let known = "GET /v1/status, /v1/explain, /v1/devices/ID/explain, \
                         POST /v1/devices/ID/restart, /v1/debugger/detach, \
                         /v1/dump?file=PATH, /v1/pause, /v1/resume, /v1/reset, /v1/reload, /v1/shutdown";
            let text = format!("there is no {}; there are {known}", request.path);
            (Status::NotFound, problem(text))
        }
    }
}

/// A device's name in a path.
fn decode(id: &str) -> String {
    let id = percent_encoding::percent_decode_str(id);
    id.decode_utf8_lossy().into_owned()
}

fn wrong_method(request: &Request, right: &'static str) -> (Status, Value) {
    let text = format!("{} takes {right}, not {}", request.path, request.method);
    (Status::WrongMethod(right), problem(text))
}
