//! The requests that there are.

use std::borrow::Cow;

use host_io::errors::chain;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::http::{Body, Request, Status, problem};
use super::query::Query;
use super::{commands, devices, dump, explain, log, metrics};
use crate::control::Control;
use crate::machine_events::{FollowError, Follower};

/// A request that belongs to a route.
pub struct Call<'a> {
    pub control: &'a Control,
    /// What stands in the path where the route has `{id}`.
    pub id: String,
    pub query: Query,
}

/// What a client gets.
pub enum Reply {
    Whole(Status, Body),
    /// The same; the machine ends behind it.
    ThenOff(Status, Body),
    /// What happens from here on.
    Follow(Follower),
}

impl From<(Status, Value)> for Reply {
    fn from((status, value): (Status, Value)) -> Self {
        Self::Whole(status, Body::Json(value))
    }
}

/// A method and a path, and what they do.
pub struct Route {
    method: &'static str,
    /// With `{id}` where a device's name stands.
    path: &'static str,
    /// The parameters that it takes.
    parameters: &'static [&'static str],
    run: fn(&Call<'_>) -> Reply,
}

const fn get(path: &'static str, run: fn(&Call<'_>) -> Reply) -> Route {
    Route {
        method: "GET",
        path,
        parameters: &[],
        run,
    }
}

const fn post(path: &'static str, run: fn(&Call<'_>) -> Reply) -> Route {
    Route {
        method: "POST",
        ..get(path, run)
    }
}

const fn put(path: &'static str, run: fn(&Call<'_>) -> Reply) -> Route {
    Route {
        method: "PUT",
        ..get(path, run)
    }
}

impl Route {
    const fn with(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }

    /// What stands for `{id}` where `path` is one of this route; empty without any.
    fn id(&self, path: &str) -> Option<String> {
        let mut found = String::new();
        let mut parts = path.split('/');
        for wanted in self.path.split('/') {
            let part = parts.next()?;
            match wanted {
                "{id}" => found = decode(part)?,
                _ if wanted == part => {}
                _ => return None,
            }
        }
        parts.next().is_none().then_some(found)
    }
}

/// A device's name in a path. None is empty.
fn decode(part: &str) -> Option<String> {
    let name = percent_decode_str(part).decode_utf8_lossy();
    (!name.is_empty()).then(|| Cow::into_owned(name))
}

/// The routes as OpenAPI describes them.
const OPENAPI: &str = include_str!("openapi.json");

/// All that this machine can be asked.
static ROUTES: &[Route] = &[
    get("/v1/status", |call| {
        (Status::Ok, commands::status(call.control)).into()
    }),
    get("/v1/events", |call| follow(call.control)),
    get("/metrics", |call| {
        let (content_type, text) = (metrics::CONTENT_TYPE, metrics::text(call.control));
        Reply::Whole(Status::Ok, Body::Text { content_type, text })
    }),
    get("/v1/openapi.json", |_| {
        let (content_type, text) = ("application/json", OPENAPI.to_owned());
        Reply::Whole(Status::Ok, Body::Text { content_type, text })
    }),
    get("/v1/explain", |call| explain::all(call.control).into()),
    get("/v1/devices/{id}/explain", |call| {
        explain::one(call.control, &call.id).into()
    }),
    post("/v1/devices/{id}/restart", |call| {
        devices::restart(call.control, &call.id).into()
    }),
    post("/v1/devices/{id}/disconnect", |call| {
        devices::disconnect(call.control, &call.id).into()
    }),
    post("/v1/devices/{id}/connect", |call| {
        devices::connect(call.control, &call.id).into()
    }),
    post("/v1/debugger/detach", |call| {
        commands::detach(call.control).into()
    }),
    post("/v1/dump", |call| {
        dump::dump(call.control, &call.query).into()
    })
    .with(&["file", "format"]),
    post("/v1/pause", |call| commands::pause(call.control).into()),
    post("/v1/resume", |call| commands::resume(call.control).into()),
    get("/v1/log", |_| log::show().into()),
    put("/v1/log", |call| log::set(&call.query).into()).with(&["filter"]),
    post("/v1/nmi", |call| commands::nmi(call.control).into()),
    post("/v1/reset", |call| commands::reset(call.control).into()),
    post("/v1/reload", |call| commands::reload(call.control).into()),
    post("/v1/shutdown", |_| {
        let (status, answer) = commands::shutdown();
        Reply::ThenOff(status, Body::Json(answer))
    }),
];

fn follow(control: &Control) -> Reply {
    match control.events().follow() {
        Ok(follower) => Reply::Follow(follower),
        Err(error @ FollowError::TooMany) => (Status::Busy, problem(chain(&error))).into(),
        Err(error) => (Status::Failed, problem(chain(&error))).into(),
    }
}

/// Does what `request` asks.
pub fn route(request: &Request, control: &Control) -> Reply {
    let matching = |route: &'static Route| Some((route, route.id(&request.path)?));
    let found: Vec<_> = ROUTES.iter().filter_map(matching).collect();
    let wanted = |(route, _): &&(&Route, String)| route.method == request.method;
    let Some((route, id)) = found.iter().find(wanted) else {
        let right: Vec<_> = found.iter().map(|(route, _)| route.method).collect();
        return match right.is_empty() {
            true => not_found(&request.path).into(),
            false => wrong_method(request, &right.join(", ")).into(),
        };
    };
    match Query::parse(&request.query, route.parameters) {
        Ok(query) => (route.run)(&Call {
            control,
            id: id.clone(),
            query,
        }),
        Err(error) => (Status::BadRequest, problem(error.to_string())).into(),
    }
}

fn not_found(path: &str) -> (Status, Value) {
    let known = ROUTES.iter().map(|route| {
        let method = route.method;
        format!("{method} {}", route.path.replace("{id}", "ID"))
    });
    let known: Vec<_> = known.collect();
    let text = format!("there is no {path}; there are {}", known.join(", "));
    (Status::NotFound, problem(text))
}

fn wrong_method(request: &Request, right: &str) -> (Status, Value) {
    let text = format!("{} takes {right}, not {}", request.path, request.method);
    (Status::WrongMethod(right.to_owned()), problem(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The route of a request, and the device that it names.
    fn find(method: &str, path: &str) -> Option<(&'static str, String)> {
        let matching = |route: &'static Route| {
            let id = route.id(path)?;
            (route.method == method).then_some((route.path, id))
        };
        ROUTES.iter().find_map(matching)
    }

    #[test]
    fn a_path_names_a_device() {
        let found = find("POST", "/v1/devices/the%20disk/restart").unwrap();
        assert_eq!(found, ("/v1/devices/{id}/restart", "the disk".into()));
        for path in [
            "/v1/devices//restart",
            "/v1/devices/a/b/restart",
            "/v1/devices/a/restart/",
            "/v1/devices/a",
            "v1/status",
            "/v1",
            "",
        ] {
            assert_eq!(find("POST", path), None, "{path}");
        }
        assert!(find("GET", "/v1/status").is_some());
        assert_eq!(find("POST", "/v1/status"), None);
    }

    /// Path, method and parameters, of which those in the path come first.
    type Described = (String, String, Vec<String>);

    #[test]
    fn the_description_has_these_routes_and_no_others() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described: Vec<Described> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let parameters = operation["parameters"].as_array();
                let names = parameters.into_iter().flatten();
                let names = names.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
                described.push((path.clone(), method.to_uppercase(), names.collect()));
            }
        }
        let mut routes: Vec<Described> = ROUTES
            .iter()
            .map(|route| {
                let id = route.path.contains("{id}").then_some("id");
                let parameters = id.iter().chain(route.parameters);
                let parameters = parameters.map(|name| name.to_string()).collect();
                (route.path.to_owned(), route.method.to_owned(), parameters)
            })
            .collect();
        described.sort_unstable();
        routes.sort_unstable();
        assert_eq!(described, routes);
    }

    #[test]
    fn no_two_routes_are_the_same() {
        let mut all: Vec<_> = ROUTES
            .iter()
            .map(|route| (route.path, route.method))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ROUTES.len());
    }
}
