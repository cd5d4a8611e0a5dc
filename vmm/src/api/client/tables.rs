//! Answers as people read them.

use serde_json::Value;

/// A machine's status.
pub fn status(answer: &Value) -> String {
    let mut text = format!(
        "outboard {}, process {}: {}\n\n",
        word(&answer["version"]),
        word(&answer["pid"]),
        word(&answer["state"])
    );
    let mut vcpus = vec![row(["VCPU", "EXITS"])];
    for vcpu in list(&answer["vcpus"]) {
        let exits = vcpu["exits"].as_object().into_iter().flatten();
        let exits: Vec<_> = exits
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        vcpus.push(row([&word(&vcpu["id"]), exits.join(", ").as_str()]));
    }
    text += &table(&vcpus);
    let devices = list(&answer["devices"]);
    if devices.is_empty() {
        return text + "\nno devices";
    }
    let head = [
        "DEVICE",
        "TYPE",
        "STATUS",
        "QUEUES",
        "INTERRUPTS",
        "RESETS",
        "BACKEND",
    ];
    let mut rows = vec![row(head)];
    let mut notes = String::new();
    for device in devices {
        rows.push(device_row(device));
        notes += &device_notes(device);
    }
    text + "\n" + &table(&rows) + &notes
}

fn device_row(device: &Value) -> Vec<String> {
    let id = word(&device["id"]);
    if device["busy"] == true {
        return row([&id, "", "busy: its backend is waited for"]);
    }
    let queues = list(&device["queues"]);
    let running = queues.iter().filter(|queue| queue["running"] == true);
    let (counters, backend) = (&device["counters"], &device["backend"]);
    let connected = match backend["connected"] == true {
        true => "connected",
        false => "away",
    };
    let connections = word(&backend["connections"]);
    let queues = format!("{}/{}", running.count(), queues.len());
    row([
        &id,
        &word(&device["type"]),
        &word(&device["status"]),
        &queues,
        &word(&counters["interrupts"]),
        &word(&counters["resets"]),
        &format!("{connected} ({connections}), {}", word(&backend["address"])),
    ])
}

/// What is wrong with a device.
fn device_notes(device: &Value) -> String {
    let id = word(&device["id"]);
    let mut notes = String::new();
    let problem = &device["backend"]["problem"];
    if !problem.is_null() {
        notes += &format!("{id}: {}\n", word(problem));
    }
    for (index, queue) in list(&device["queues"]).iter().enumerate() {
        if queue["errors"].as_u64() > Some(0) {
            let errors = word(&queue["errors"]);
            notes += &format!("{id}: its backend has reported errors on queue {index}: {errors}\n");
        }
        if queue["stalled_seconds"].as_u64() > Some(0) {
            let seconds = word(&queue["stalled_seconds"]);
            notes += &format!("{id}: requests on queue {index} have waited for {seconds} s\n");
        }
    }
    notes
}

/// What has happened, on one line.
pub fn event(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| *name != "event");
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}={}", word(value)))
        .collect();
    let name = word(&event["event"]).replace('_', " ");
    match fields.is_empty() {
        true => name,
        false => format!("{name}: {}", fields.join(", ")),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value on one line, whatever stands in it.
fn word(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    text.replace(char::is_control, " ")
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell; the last one of a row counts for none.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len());
        let widths = cells.map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_a_table_with_notes_of_what_is_wrong() {
        let device = |id: &str, problem: Value| {
            json!({
                "id": id, "type": "blk", "status": "ACKNOWLEDGE|DRIVER",
                "queues": [
                    {"running": true, "errors": 0, "stalled_seconds": 0},
                    {"running": false, "errors": 2, "stalled_seconds": 3},
                ],
                "counters": {"interrupts": 7, "resets": 1},
                "backend": {"address": "a", "connected": problem.is_null(), "connections": 1, "problem": problem},
            })
        };
        let answer = json!({
            "version": "1.2", "pid": 3, "state": "running",
            "vcpus": [{"id": 0, "exits": {"HLT": 4, "IO_IN": 5}}, {"id": 1, "exits": {}}],
            "devices": [device("disk", Value::Null), {"id": "a", "busy": true}, device("b", "it\nhung up".into())],
        });
        let expected = "outboard 1.2, process 3: running\n\
            \n\
            VCPU  EXITS\n\
            0     HLT 4, IO_IN 5\n\
            1\n\
            \n\
            DEVICE  TYPE  STATUS              QUEUES  INTERRUPTS  RESETS  BACKEND\n\
            disk    blk   ACKNOWLEDGE|DRIVER  1/2     7           1       connected (1), a\n\
            a             busy: its backend is waited for\n\
            b       blk   ACKNOWLEDGE|DRIVER  1/2     7           1       away (1), a\n\
            disk: its backend has reported errors on queue 1: 2\n\
            disk: requests on queue 1 have waited for 3 s\n\
            b: it hung up\n\
            b: its backend has reported errors on queue 1: 2\n\
            b: requests on queue 1 have waited for 3 s\n";
        assert_eq!(status(&answer), expected);
    }

    #[test]
    fn an_event_is_a_line() {
        let lost = json!({"event": "backend_lost", "device": "blk0", "reason": "it\nhung up"});
        assert_eq!(event(&lost), "backend lost: device=blk0, reason=it hung up");
        assert_eq!(event(&json!({"event": "reset"})), "reset");
        assert_eq!(event(&Value::Null), "null");
    }
}
