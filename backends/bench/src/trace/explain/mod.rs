//! Why does it hang? What a trace says of the state at its end, in words.

mod connection;
mod queue;

use std::collections::BTreeMap;

use super::record::Record;
use connection::Connection;

/// A paragraph for each connection.
pub fn explain(records: &[Record]) -> String {
    let mut connections: BTreeMap<u32, Connection> = BTreeMap::new();
    for record in records {
        let connection = connections.entry(record.connection).or_default();
        connection.follow(record);
    }
    let end = records.last().map_or(0, |record| record.time);
    let paragraphs: Vec<_> = connections
        .values()
        .map(|connection| connection.explain(end))
        .collect();
    paragraphs.join("\n")
}

#[cfg(test)]
#[path = "explain_test.rs"]
mod tests;
