//! How often each request was made, and how long its replies took.

use std::collections::BTreeMap;
use std::fmt;

use diagnosis::duration;

use crate::trace::decode;
use crate::trace::pending::expects_reply;
use crate::trace::record::{Event, Message, Record, Side, Used};

/// One kind of request.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub name: String,
    pub requests: usize,
    /// Those that should have been answered and were not.
    pub unanswered: usize,
    /// Of the replies, in nanoseconds, in order.
    pub latencies: Vec<u64>,
}

impl Row {
    /// The latency that so many of a hundred replies keep to (nearest rank).
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied()
    }
}

/// The slowest first.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub rows: Vec<Row>,
}

impl Summary {
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut rows: BTreeMap<(Side, u32), Row> = BTreeMap::new();
        let mut answered: BTreeMap<(Side, u32), (usize, usize)> = BTreeMap::new();
        let mut chains: BTreeMap<String, Row> = BTreeMap::new();
        for record in records {
            let message = match &record.event {
                Event::Message(message) => message,
                Event::Used(used) => {
                    count_used(&mut chains, used);
                    continue;
                }
                _ => continue,
            };
            let key = (message.channel, message.request);
            let row = rows.entry(key).or_insert_with(|| Row {
                name: decode::message_name(message),
                ..Row::default()
            });
            count(row, answered.entry(key).or_default(), message);
        }
        for (key, row) in &mut rows {
            let (asked, got) = answered.get(key).copied().unwrap_or_default();
            row.unanswered = asked.saturating_sub(got);
            row.latencies.sort_unstable();
        }
        for row in chains.values_mut() {
            row.latencies.sort_unstable();
        }
        let mut rows: Vec<_> = rows.into_values().chain(chains.into_values()).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.percentile(99)));
        Self { rows }
    }
}

/// Chains are called as their requests are: by the first word.
fn count_used(chains: &mut BTreeMap<String, Row>, used: &Used) {
    let what = used.what.as_deref().unwrap_or("chain");
    let word = what.split([' ', ',']).next().unwrap_or(what);
    let name = format!("queue {}: {word}", used.queue);
    let row = chains.entry(name.clone()).or_default();
    row.name = name;
    row.requests += 1;
    row.latencies.extend(used.latency);
}

fn count(row: &mut Row, (asked, got): &mut (usize, usize), message: &Message) {
    if message.is_reply() {
        *got += 1;
        row.latencies.extend(message.latency);
    } else {
        row.requests += 1;
        *asked += usize::from(expects_reply(message.channel, &message.header()));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["requests", "unanswered", "p50", "p90", "p99", "max"];
        write!(f, "{:<28}", "request")?;
        for title in titles {
            write!(f, "{title:>11}")?;
        }
        for row in &self.rows {
            write!(f, "\n{:<28}{:>11}", row.name, row.requests)?;
            match row.unanswered {
                0 => write!(f, "{:>11}", "")?,
                unanswered => write!(f, "{unanswered:>11}")?,
            }
            for percent in [50, 90, 99, 100] {
                let text = row.percentile(percent).map(duration).unwrap_or_default();
                write!(f, "{text:>11}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "summary_test.rs"]
mod tests;
