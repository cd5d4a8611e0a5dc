//! The control API: HTTP/1.1 and JSON on a Unix socket (`--api PATH`).
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | vCPUs, devices, their backends, counters |
//! | `GET /v1/explain`, `/v1/devices/ID/explain` | queues and backends as they are, and what is wrong |
//! | `POST /v1/devices/ID/restart` | when another process serves the device |
//! | `POST /v1/devices/ID/disconnect`, `/connect` | when its backend has been let go, or one serves |
//! | `POST /v1/debugger/detach` | when the debugger is gone and the guest runs |
//! | `POST /v1/dump?file=PATH` | when RAM and registers are in this file |
//! | `POST /v1/pause`, `/v1/resume` | when all vCPUs have stopped, or may resume |
//! | `GET /v1/events` | what happens from here on, as server-sent events |
//! | `GET /v1/openapi.json` | these requests, as OpenAPI 3.1 describes them |
//! | `GET /metrics` | counters in Prometheus' text format |
//! | `GET /v1/log`, `PUT /v1/log?filter=FILTER` | what is logged, from here on in the latter case |
//! | `POST /v1/nmi` | when each vCPU has a non-maskable interrupt |
//! | `POST /v1/reset` | when the main thread has been told |
//! | `POST /v1/shutdown` | just before the machine ends |
//!
//! An error is an object with one member, `error`. One request a connection; each client has
//! a thread, and a deadline unless it follows events, so that a silent one holds up nobody.

pub mod client;
mod commands;
mod devices;
mod dump;
mod event_stream;
mod explain;
mod http;
mod log;
mod metrics;
mod query;
mod routes;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clients::{Error, Server, Service};
use crate::control::Control;
use crate::power::PowerRequest;
use http::{Body, Status, problem};
use routes::Reply;

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
            serve(&client, control);
        }
    }

    fn turn_away(&self, client: UnixStream) {
        let most = Self::MAX_CLIENTS;
        let answer = problem(format!("{most} clients are being served; try again"));
        // Written without waiting: it is short and the socket's buffer empty.
        let _ = http::answer(&client, Status::Busy, Body::Json(answer), Duration::ZERO);
    }
}

/// Answers one request.
fn serve(client: &UnixStream, control: Arc<Control>) {
    let reply = match http::receive(client, CLIENT_DEADLINE) {
        Ok(request) => routes::route(&request, &control),
        Err(error) => match error.status() {
            Some(status) => (status, problem(error.to_string())).into(),
            // It left.
            None => return,
        },
    };
    match reply {
        Reply::Whole(status, body) => answer_with(client, status, body),
        Reply::ThenOff(status, body) => {
            // The process ends with the machine, and would not wait for the answer.
            answer_with(client, status, body);
            control.power().request(PowerRequest::Off);
        }
        Reply::Follow(follower) => {
            // The machine may end meanwhile.
            drop(control);
            if let Err(error) = event_stream::serve(client, &follower) {
                tracing::debug!(%error, "control API: a client follows events no more");
            }
        }
    }
}

fn answer_with(client: &UnixStream, status: Status, body: Body) {
    if let Err(error) = http::answer(client, status, body, CLIENT_DEADLINE) {
        tracing::debug!(%error, "control API: a client did not take its answer");
    }
}
