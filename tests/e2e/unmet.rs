//! The last of the tests: lists what those before it could not show here.

use std::io::Write;

use tests::unmet;

/// Written past the test harness, which would keep it to itself.
#[test]
fn expectations_that_no_host_here_can_meet_are_listed() {
    let noted = unmet::take();
    for _ in 0..2 {
        unmet::note("a test");
    }
    assert_eq!(unmet::take().into_iter().collect::<Vec<_>>(), ["a test"]);
    let mut list = format!("\n{} expectations were not met on this host", noted.len());
    for what in &noted {
        list.push_str(&format!("\n  not shown: {what}"));
    }
    list.push('\n');
    std::io::stderr().write_all(list.as_bytes()).unwrap();
    assert!(unmet::take().is_empty(), "each run lists its own");
}
