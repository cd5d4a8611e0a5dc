//! `GET /v1/log` and `PUT /v1/log`: what the machine logs.

use host_io::errors::chain;
use serde_json::{Value, json};

use super::http::{Status, problem};
use super::query::Query;
use crate::log::filter;

/// The filter in force.
pub fn show() -> (Status, Value) {
    (Status::Ok, json!({ "filter": filter::get() }))
}

/// Logs by another filter from here on. Backends that run keep the one that they were
/// started with.
pub fn set(query: &Query) -> (Status, Value) {
    let Some(filter) = query.get("filter").and_then(|filter| filter.to_str()) else {
        let text = "a log filter is needed, in UTF-8: PUT /v1/log?filter=FILTER";
        return (Status::BadRequest, problem(text));
    };
    match filter::set(filter) {
        Ok(()) => show(),
        Err(error @ filter::Error::NotStarted) => (Status::Failed, problem(chain(&error))),
        Err(error) => (Status::BadRequest, problem(chain(&error))),
    }
}
