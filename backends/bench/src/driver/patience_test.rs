use super::*;

const MOST: Duration = Duration::from_secs(5);

#[test]
fn each_wait_in_vain_halves_the_next_and_none_is_shorter_than_the_least() {
    let patience = Patience::default();
    let mut limits = Vec::new();
    for _ in 0..100 {
        limits.push(patience.limit(Awaited::Message, MOST));
        patience.ran_out(Awaited::Message);
    }
    assert_eq!(limits[..3], [MOST, MOST / 2, MOST / 4]);
    assert_eq!(limits[99], LEAST);
    assert!(limits.iter().sum::<Duration>() < 2 * MOST + 100 * LEAST);
    let short = LEAST / 2;
    assert_eq!(patience.limit(Awaited::Message, short), short);
}

#[test]
fn a_queue_that_is_silent_takes_no_time_from_another() {
    let patience = Patience::default();
    patience.clone().ran_out(Awaited::Buffer(1));
    assert_eq!(patience.limit(Awaited::Buffer(1), MOST), MOST / 2);
    for other in [
        Awaited::Buffer(0),
        Awaited::Notification(1),
        Awaited::Message,
    ] {
        assert_eq!(patience.limit(other, MOST), MOST);
    }
}
