//! A trace as one page that needs nothing else: a timeline, latencies, messages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use diagnosis::duration;

use super::summary::{Row, Summary};
use crate::trace::format::line;
use crate::trace::record::{Event, Record, Side};

/// Marks in the timeline, and lines of the list. A browser is slow with more.
const MOST: usize = 20_000;
/// Height of a lane of the timeline, in pixels.
const LANE: usize = 26;

/// The page, called `title`.
pub fn page(title: &str, records: &[&Record]) -> String {
    let title = escape(title);
    let shown = &records[..records.len().min(MOST)];
    let first = records.first().map_or(0, |record| record.time);
    let last = records.last().map_or(0, |record| record.time);
    let seconds = Duration::from_nanos(last - first).as_secs_f64();
    let note = match records.len() - shown.len() {
        0 => String::new(),
        more => format!(" Timeline and list end before the last {more}."),
    };
    let summary = Summary::of(records.iter().copied());
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p>{} records in {seconds:.6} s.{note}</p>\n\
         <h2>Timeline</h2>\n{}\n<h2>Latency by request</h2>\n{}\n\
         <details><summary>Messages</summary><pre>{}</pre></details>\n\
         <script>{SCRIPT}</script></body></html>\n",
        records.len(),
        timeline(shown, first, last.max(first + 1)),
        latencies(&summary),
        lines(shown),
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:14px/1.4 system-ui,sans-serif;margin:1.5em;max-width:90em}\
.scroll{overflow-x:auto;border:1px solid #8886;border-radius:4px}\
svg{display:block}svg text{font:11px system-ui,sans-serif;fill:currentColor}\
.frontend{fill:#2f7ed8}.backend{fill:#d8622f}.event{fill:#888}.lane{stroke:#8884}\
rect:hover{stroke:currentColor}\
table{border-collapse:collapse}th,td{padding:2px 10px;text-align:right;border-bottom:1px solid #8883}\
th:first-child,td:first-child{text-align:left}.unanswered{color:#d02020;font-weight:bold}\
pre{overflow-x:auto;font-size:12px}label{margin-left:1em}";

/// Places are percentages of the drawing's width, so that a wider drawing is a closer look.
const SCRIPT: &str = "\
const z=document.getElementById('zoom'),t=document.getElementById('timeline');\
z.oninput=()=>{const b=t.parentElement,c=(b.scrollLeft+b.clientWidth/2)/b.scrollWidth;\
t.style.width=100*2**z.value+'%';b.scrollLeft=c*b.scrollWidth-b.clientWidth/2};";

/// A lane for each direction of each connection.
fn timeline(records: &[&Record], first: u64, last: u64) -> String {
    let mut lanes: BTreeMap<(&str, u32, &str), String> = BTreeMap::new();
    for record in records {
        let (lane, begin, class) = place(record);
        let key = (record.device.as_str(), record.connection, lane);
        let percent = |time: u64| 100.0 * time.saturating_sub(first) as f64 / (last - first) as f64;
        let (begin, end) = (percent(begin), percent(record.time));
        let text = escape(&line(record));
        // What takes no time is seen by its margin.
        let _ = write!(
            lanes.entry(key).or_default(),
            "<rect class=\"{class}\" x=\"{begin:.4}%\" y=\"YY\" width=\"{:.4}%\" height=\"12\" \
             style=\"min-width:2px\"><title>{text}</title></rect>",
            (end - begin).max(0.03)
        );
    }
    let mut drawn = String::new();
    for (n, ((device, connection, lane), marks)) in lanes.iter().enumerate() {
        let top = n * LANE;
        let label = escape(&format!("{device}#{connection} {lane}"));
        let _ = writeln!(
            drawn,
            "<text x=\"2\" y=\"{}\">{label}</text>{}\
             <line class=\"lane\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>",
            top + 10,
            marks.replace("YY", &(top + 12).to_string()),
            y = top + LANE - 1,
        );
    }
    let height = lanes.len() * LANE;
    format!(
        "<p>A bar is a request until its reply; a point is a message without one. \
         <label>zoom <input id=\"zoom\" type=\"range\" min=\"0\" max=\"10\" step=\"0.1\" \
         value=\"0\"></label></p><div class=\"scroll\">\
         <svg id=\"timeline\" width=\"100%\" height=\"{height}\">{drawn}</svg></div>"
    )
}

/// The lane of a record, where its mark begins, and the mark's class.
fn place(record: &Record) -> (&'static str, u64, &'static str) {
    match &record.event {
        Event::Kick { .. } | Event::Available(_) => ("rings", record.time, "frontend"),
        Event::Call { .. } => ("rings", record.time, "backend"),
        Event::Used(used) => {
            let begin = record.time.saturating_sub(used.latency.unwrap_or(0));
            ("rings", begin, "backend")
        }
        Event::Message(message) => {
            // A reply belongs to the request that it ends.
            let latency = message.latency.unwrap_or(0);
            let lane = match message.channel {
                Side::Frontend => "requests of the frontend",
                Side::Backend => "requests of the backend",
            };
            let begin = record.time.saturating_sub(latency);
            (lane, begin, message.from.name())
        }
        _ => ("connection", record.time, "event"),
    }
}

fn latencies(summary: &Summary) -> String {
    let mut table = "<table><tr><th>request<th>requests<th>unanswered<th>p50<th>p90<th>p99\
                     <th>max<th>from 1 µs to 10 s, a bar for each doubling"
        .to_owned();
    for row in &summary.rows {
        let _ = write!(table, "<tr><td>{}<td>{}", escape(&row.name), row.requests);
        match row.unanswered {
            0 => table += "<td>",
            unanswered => _ = write!(table, "<td class=\"unanswered\">{unanswered}"),
        }
        for percent in [50, 90, 99, 100] {
            let text = row.percentile(percent).map(duration).unwrap_or_default();
            let _ = write!(table, "<td>{text}");
        }
        let _ = write!(table, "<td>{}", histogram(row));
    }
    table + "</table>"
}

/// 2^10 ns are about a microsecond, 2^33 ns about ten seconds.
const BUCKETS: std::ops::Range<u32> = 10..34;

fn histogram(row: &Row) -> String {
    if row.latencies.is_empty() {
        return String::new();
    }
    let bucket = |latency: u64| latency.max(1).ilog2().clamp(BUCKETS.start, BUCKETS.end - 1);
    let count = |n: u32| {
        row.latencies
            .iter()
            .filter(|latency| bucket(**latency) == n)
            .count()
    };
    let counts: Vec<_> = BUCKETS.map(count).collect();
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut bars = String::new();
    for (n, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (24 * count).div_ceil(most);
        let (x, y) = (10 * n, 24 - height);
        let from = duration(1 << (BUCKETS.start + n as u32));
        let _ = write!(
            bars,
            "<rect class=\"backend\" x=\"{x}\" y=\"{y}\" width=\"9\" height=\"{height}\">\
             <title>{count} from {from} on</title></rect>"
        );
    }
    format!(
        "<svg width=\"{}\" height=\"25\">{bars}</svg>",
        10 * BUCKETS.len()
    )
}

fn lines(records: &[&Record]) -> String {
    let mut text = String::new();
    for record in records {
        text += &escape(&line(record));
        text.push('\n');
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::record::Message;

    #[test]
    fn names_of_a_stranger_s_are_text() {
        let record = Record {
            number: 0,
            time: 5,
            device: "<script>".into(),
            device_type: None,
            connection: 1,
            event: Event::Message(Message {
                channel: Side::Frontend,
                from: Side::Backend,
                request: 1,
                flags: 5,
                size: 0,
                payload: Vec::new(),
                files: Vec::new(),
                latency: Some(9),
            }),
        };
        let page = page("a <title>", &[&record]);
        assert_eq!(page.matches("<script>").count(), 1, "only its own");
        assert!(page.contains("a &lt;title&gt;"));
        assert!(page.contains("GET_FEATURES"));
    }

    #[test]
    fn a_trace_of_nothing_is_a_page_too() {
        assert!(page("empty", &[]).contains("0 records"));
    }
}
