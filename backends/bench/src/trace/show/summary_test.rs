use super::*;

fn message(request: u32, flags: u32, latency: Option<u64>) -> Record {
    Record {
        number: 0,
        time: 0,
        device: "disk".into(),
        device_type: None,
        connection: 1,
        event: Event::Message(Message {
            channel: Side::Frontend,
            from: Side::Frontend,
            request,
            flags,
            size: 0,
            payload: Vec::new(),
            files: Vec::new(),
            latency,
        }),
    }
}

#[test]
fn percentiles_are_ranks_and_the_slowest_is_first() {
    let mut records: Vec<_> = (1..=100u64)
        .rev()
        .flat_map(|n| [message(1, 1, None), message(1, 5, Some(n))])
        .collect();
    records.extend([message(40, 1, None), message(40, 5, Some(100_000))]);
    records.extend([message(3, 1, None), message(24, 1, None)]);
    let summary = Summary::of(&records);
    let names: Vec<_> = summary.rows.iter().map(|row| &*row.name).collect();
    assert_eq!(names[..2], ["GET_STATUS", "GET_FEATURES"]);
    let features = &summary.rows[1];
    let found = [50, 90, 99, 100].map(|percent| features.percentile(percent));
    assert_eq!(found, [Some(50), Some(90), Some(99), Some(100)]);
    assert_eq!((features.requests, features.unanswered), (100, 0));
    let unanswered = |name| {
        let row = summary.rows.iter().find(|row| row.name == name);
        row.map(|row| (row.unanswered, row.percentile(50)))
    };
    // SET_OWNER has no reply; GET_CONFIG should have had one.
    assert_eq!(unanswered("SET_OWNER"), Some((0, None)));
    assert_eq!(unanswered("GET_CONFIG"), Some((1, None)));
    let text = summary.to_string();
    assert!(
        text.contains("GET_STATUS                            1                100 µs"),
        "{text}"
    );
}
