//! Says what came of a replay: for people, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::compare::{Answer, Difference};
use super::outcome::{First, Outcome};
use crate::device;

/// Bytes of a line of a hexdump.
const LINE: usize = 16;
/// Lines of it.
const LINES: usize = 4;

/// Who has given an answer.
struct Names {
    expected: &'static str,
    found: &'static str,
}

impl Names {
    fn of(first: &First) -> Self {
        let expected = match first.recorded {
            None => "the recording",
            Some(_) => "the other backend",
        };
        let found = "the backend";
        Self { expected, found }
    }
}

pub fn text(outcome: &Outcome, is_against: bool) -> String {
    let mut text = String::new();
    for note in &outcome.notes {
        line(&mut text, &format!("note: {note}"));
    }
    if let Some(first) = &outcome.first {
        explain(&mut text, first);
    }
    if let Some(why) = &outcome.ended_early {
        line(&mut text, &format!("nothing more was compared: {why}\n"));
    }
    text += &summary(outcome, is_against);
    text
}

fn line(text: &mut String, line: &str) {
    // A string takes all that it is given.
    let _ = writeln!(text, "{line}");
}

fn summary(outcome: &Outcome, is_against: bool) -> String {
    let Outcome {
        requests,
        equal,
        different,
        external,
        left_out,
        elapsed,
        ..
    } = outcome;
    let verdict = match outcome.is_equal() {
        true => "equal",
        false => "DIFFERENT",
    };
    let than = if is_against { " by both" } else { "" };
    let mut text = format!(
        "{verdict}: {requests} requests in {:.2} s; {equal} answered the same{than}, {different} not",
        elapsed.as_secs_f64()
    );
    let others = requests.saturating_sub(equal + different + external + left_out);
    let counts = [
        (*external, "are buffers for what comes from elsewhere"),
        (*left_out, "could not be recorded"),
        (others, "have no answer to compare"),
    ];
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        text += &format!(", {count} {what}");
    }
    text + "\n"
}

fn explain(text: &mut String, first: &First) {
    let First {
        number,
        queue,
        what,
        ..
    } = first;
    line(text, &format!("request {number}, queue {queue}: {what}"));
    line(text, &format!("  {}", in_words(first)));
    if let Difference::Content { at } = first.difference {
        let names = Names::of(first);
        dump(text, names.expected, &first.expected, at);
        if let Some(found) = &first.found {
            dump(text, names.found, found, at);
        }
        if let Some(recorded) = &first.recorded {
            dump(text, "the recording", recorded, at);
        }
    } else if let Some(recorded) = &first.recorded {
        line(
            text,
            &format!("  the recording has {}", brief(first, recorded)),
        );
    }
    if !first.before.is_empty() {
        line(text, "  before it:");
    }
    for before in &first.before {
        line(text, &format!("    {before}"));
    }
    if !first.output.is_empty() {
        line(text, "  the backend printed:");
    }
    for output in &first.output {
        line(text, &format!("    {output}"));
    }
    text.push('\n');
}

/// What is different.
fn in_words(first: &First) -> String {
    let Names { expected, found } = Names::of(first);
    match &first.difference {
        Difference::Missing { why } => format!("{found} gave no answer: {why}"),
        Difference::Status {
            expected: right,
            found: wrong,
        } => {
            let name = |status: u8| {
                let name = device::result(first.device_type, status);
                name.unwrap_or_else(|| format!("status {status}"))
            };
            let (right, wrong) = (name(*right), name(*wrong));
            format!("{found} says {wrong}, and {expected} {right}")
        }
        Difference::Length {
            expected: right,
            found: wrong,
        } => format!("{found} says it wrote {wrong} bytes, and {expected} {right}"),
        Difference::Content { at } => {
            format!("the answers are different from byte {at} (0x{at:x}) on")
        }
        Difference::Order { overtaken_by } => format!(
            "{found} completed it behind request {overtaken_by}, and {expected} before that"
        ),
    }
}

/// An answer in a few words.
fn brief(first: &First, answer: &Answer) -> String {
    let len = answer.len.map_or("some".into(), |len| len.to_string());
    let status = answer
        .last
        .and_then(|last| device::result(first.device_type, last));
    let status = status.map_or_else(String::new, |status| format!("{status}, "));
    format!("{status}{len} bytes written")
}

/// The bytes around a place.
fn dump(text: &mut String, name: &str, answer: &Answer, at: usize) {
    line(text, &format!("  {name}:"));
    let begin = at / LINE * LINE;
    let bytes = answer.bytes.get(begin..).unwrap_or_default();
    for (n, bytes) in bytes.chunks(LINE).take(LINES).enumerate() {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = bytes.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        });
        let shown: String = shown.collect();
        let place = begin + n * LINE;
        let hex = hex.join(" ");
        line(text, &format!("    {place:08x}  {hex:<47}  |{shown}|"));
    }
}

pub fn json(outcome: &Outcome) -> String {
    let value = json!({
        "equal": outcome.is_equal(),
        "requests": outcome.requests,
        "answered_the_same": outcome.equal,
        "different": outcome.different,
        "external": outcome.external,
        "not_recorded": outcome.left_out,
        "seconds": outcome.elapsed.as_secs_f64(),
        "notes": outcome.notes,
        "ended_early": outcome.ended_early,
        "first_difference": outcome.first.as_ref().map(first_json),
    });
    format!("{value:#}\n")
}

fn first_json(first: &First) -> Value {
    let kind = match first.difference {
        Difference::Missing { .. } => "missing",
        Difference::Status { .. } => "status",
        Difference::Length { .. } => "length",
        Difference::Content { .. } => "content",
        Difference::Order { .. } => "order",
    };
    let at = match first.difference {
        Difference::Content { at } => Some(at),
        _ => None,
    };
    let answer = |answer: &Answer| json!({ "length": answer.len, "last": answer.last, "bytes": window(answer, at) });
    json!({
        "request": first.number,
        "queue": first.queue,
        "what": first.what,
        "kind": kind,
        "offset": at,
        "text": in_words(first),
        "expected": answer(&first.expected),
        "found": first.found.as_ref().map(answer),
        "recorded": first.recorded.as_ref().map(answer),
        "before": first.before,
        "output": first.output,
    })
}

/// The bytes from the line of a difference on, in hexadecimal digits.
fn window(answer: &Answer, at: Option<usize>) -> Option<String> {
    let begin = at? / LINE * LINE;
    let bytes = answer.bytes.get(begin..).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(LINE * LINES)];
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
