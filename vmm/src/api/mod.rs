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

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Error, Server, Service};
use crate::control::Control;
use crate::power::PowerRequest;
use http::{Request, Status, problem};

/// How long a client may take to send its request, and to take the answer.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);

struct Api(Weak<Control>);

/// Serves for as long as there is `control`.
pub fn start(path: &Path, control: &Arc<Control>) -> Result<Server, Error> {
    Server::start(path, Api(Arc::downgrade(control)))
}

impl Service for Api {
    const NAME: &'static str = "control API";
    const THREAD: &'static str = "api";
    const MAX_CLIENTS: usize = 16;

    fn serve(&self, client: UnixStream) {
        if let Some(control) = self.0.upgrade() {
            serve(&client, &control);
        }
    }

    fn turn_away(&self, client: UnixStream) {
        let most = Self::MAX_CLIENTS;
        let answer = problem(format!("{most} clients are being served; try again"));
        // Written without waiting: it is short and the socket's buffer empty.
        let _ = http::answer(&client, Status::Busy, &answer, Duration::ZERO);
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
