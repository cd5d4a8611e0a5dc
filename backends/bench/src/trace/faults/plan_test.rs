use super::*;
use crate::trace::faults::FaultFile;

const RULES: &str = r#"
[[fault]]
message = "GET_CONFIG"
from = "frontend"
probability = 0.2
do = "truncate"

[[fault]]
message = "any"
after = 10
every = 7
do = "corrupt"

[[fault]]
kick = 1
nth = 3
do = "drop"
"#;

fn plan(text: &str, seed: u32) -> Plan {
    plan_of(text, seed, &["disk"])
}

fn plan_of(text: &str, seed: u32, devices: &[&str]) -> Plan {
    let devices = devices.iter().copied().map(String::from).collect();
    Plan::new(FaultFile::parse(text).unwrap().rules, seed, devices)
}

/// What happens to 100 requests, replies and kicks.
fn run(plan: &mut Plan) -> Vec<Option<Action>> {
    let message = |from| Occurrence::Message {
        name: "GET_CONFIG",
        from,
        len: 84,
    };
    let events = [
        message(Side::Frontend),
        message(Side::Backend),
        Occurrence::Kick(0),
        Occurrence::Kick(1),
    ];
    let events = events.iter().cycle().take(400);
    events.map(|event| plan.next(0, event)).collect()
}

#[test]
fn the_same_seed_has_the_same_schedule_and_another_seed_another() {
    let [mut a, mut b, mut c] = [7, 7, 8].map(|seed| plan(RULES, seed));
    assert_eq!(run(&mut a), run(&mut b));
    assert_ne!(run(&mut plan(RULES, 7)), run(&mut c));
    assert_eq!(a.to_string(), b.to_string());
    assert!(
        a.to_string()
            .starts_with("# 50 faults were injected\nseed = 7\n"),
        "{a}"
    );
}

#[test]
fn a_schedule_repeats_the_faults_and_itself_whatever_the_seed() {
    let mut first = plan(RULES, 7);
    let faults = run(&mut first);
    let schedule = first.to_string();
    let mut again = plan(&schedule, 7);
    assert_eq!(run(&mut again), faults);
    assert_eq!(again.to_string(), schedule);
    assert_eq!(run(&mut plan(&schedule, 99)), faults);
}

#[test]
fn rules_count_what_passes_their_place() {
    let faults = run(&mut plan(RULES, 7));
    let drops = faults.iter().enumerate();
    let drops = drops.filter(|(_, fault)| **fault == Some(Action::Drop));
    // The third kick of queue 1.
    assert_eq!(drops.map(|(place, _)| place).collect::<Vec<_>>(), [11]);
    let truncated = |fault: &&Option<Action>| matches!(fault, Some(Action::Truncate(_)));
    let truncated = faults.iter().filter(truncated).count();
    assert!((8..33).contains(&truncated), "{truncated} of 100 at 0.2");
    let cut = |fault: &Option<Action>| match fault {
        Some(Action::Truncate(Some(bytes))) => (1..84).contains(bytes),
        Some(Action::Corrupt(Some(byte))) => *byte < 84,
        _ => true,
    };
    assert!(faults.iter().all(cut), "{faults:?}");
}

#[test]
fn nth_counts_behind_after_and_certainty_is_certain() {
    let text = "[[fault]]\nkick = 1\nafter = 5\nnth = 2\ndo = \"double\"\n\
                [[fault]]\nkick = 0\nprobability = 1.0\ndo = \"drop\"\n\
                [[fault]]\nmessage = \"any\"\nprobability = 0.0\ndo = \"drop\"\n";
    let mut plan = plan(text, 1);
    let faults = run(&mut plan);
    let count = |action| {
        faults
            .iter()
            .filter(|fault| **fault == Some(action))
            .count()
    };
    assert_eq!((count(Action::Drop), count(Action::Double)), (100, 1));
    assert!(
        plan.to_string()
            .contains("kick = 1\nnth = 7\ndo = \"double\""),
        "{plan}"
    );
}

#[test]
fn devices_are_counted_and_drawn_for_each_by_itself_and_named_in_the_schedule() {
    let text = "[[fault]]\nkick = 0\nprobability = 0.3\ndo = \"drop\"\n\
                [[fault]]\ndevice = \"net\"\nkick = 0\nnth = 4\ndo = \"double\"\n";
    let run = |plan: &mut Plan, order: &[usize]| {
        let mut faults = [Vec::new(), Vec::new()];
        for device in order {
            faults[*device].push(plan.next(*device, &Occurrence::Kick(0)));
        }
        faults
    };
    let by_turns: Vec<_> = (0..100).map(|count| count % 2).collect();
    let one_by_one: Vec<_> = (0..100).map(|count| count / 50).collect();
    let mut first = plan_of(text, 3, &["disk", "net"]);
    let faults = run(&mut first, &by_turns);
    let mut second = plan_of(text, 3, &["disk", "net"]);
    assert_eq!(run(&mut second, &one_by_one), faults);
    assert_ne!(faults[0], faults[1]);
    assert!(!faults[0].contains(&Some(Action::Double)));
    let schedule = first.to_string();
    let mut again = plan_of(&schedule, 99, &["disk", "net"]);
    assert_eq!(run(&mut again, &one_by_one), faults);
    assert!(
        schedule.contains("\ndevice = \"disk\"\nkick = 0\nnth = "),
        "{schedule}"
    );
}
