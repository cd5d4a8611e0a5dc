//! Checks fail when they should: a small backend is sound, and with one break in it the check that
//! names the broken rule fails.

mod fake;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fake::Break;
use workbench::check::{Outcome, Runner, all};
use workbench::device::DeviceType;
use workbench::report::Text;
use workbench::target::Target;

/// Each break, and the check that has to find it.
const BREAKS: &[(Break, &str)] = &[
    (Break::NoVersion1, "negotiation.version-1"),
    (Break::ReservedBit, "negotiation.reserved-bits"),
    (Break::NoQueues, "negotiation.queue-num"),
    (
        Break::DisabledWithoutProtocolFeatures,
        "negotiation.without-protocol-features",
    ),
    (Break::AcksWithOne, "ack.success-is-zero"),
    (Break::AcksUnasked, "ack.only-when-asked"),
    (Break::RepliesTwice, "ack.one-reply-to-a-request"),
    (Break::IgnoresUnknown, "message.unknown-is-answered"),
    (
        Break::HangsUpOnUnknown,
        "message.unknown-keeps-the-connection",
    ),
    (Break::AcceptsUnknown, "message.unknown-is-refused"),
    (Break::RefusesFullTable, "message.memory-table-of-full-size"),
    (
        Break::AcceptsMissingFiles,
        "message.memory-table-without-file",
    ),
    (Break::IgnoresMmapOffset, "memory.mmap-offset"),
    (Break::TakesGuestForUser, "memory.user-addresses-are-opaque"),
    (Break::StartsWhenEnabled, "vring.not-started"),
    (Break::LosesEarlyKick, "vring.kick-before-enable"),
    (Break::WaitsForKick, "vring.start-without-a-kick"),
    (Break::NeedsCall, "vring.no-call-descriptor"),
    (Break::BaseOffByOne, "vring.base-counts-requests"),
    (Break::BaseBeforeDrained, "vring.base-drains"),
    (Break::RunsWhenStopped, "vring.stopped-stays-stopped"),
    (Break::IgnoresBase, "vring.start-at-a-base"),
    (Break::IndexWrapsWithRing, "vring.start-before-the-wrap"),
    (Break::UsedIdIsSlot, "split.used-id"),
    (Break::LengthTooLong, "split.used-length-bound"),
    (Break::WritesHalf, "split.used-length"),
    (Break::WritesDescriptors, "split.readable-untouched"),
    (Break::WritesBehindBuffer, "split.readable-untouched"),
    (Break::WritesAfterUse, "split.done-means-done"),
    (Break::RefusesSeveral, "split.framing"),
    (Break::OneChainAKick, "split.batch"),
    (Break::NeverNotifies, "split.notification"),
    (Break::AlwaysNotifies, "split.notification-suppressed"),
    (Break::EventOffByOne, "split.event-idx-reached"),
    (Break::NeverResumesKicks, "split.kick-only-when-wanted"),
    (Break::TakesSpuriousKicks, "split.spurious-kicks"),
    (Break::IgnoresIndirect, "split.indirect"),
    (Break::IndirectNeedsNoWrite, "split.indirect-write-flag"),
    (Break::FollowsLoops, "hostile.loop"),
    (Break::WritesNothing, "rng.one-byte-or-more"),
    (Break::SameBytes, "rng.different-each-time"),
];

/// The checks that fail, of those with one of these names, with their reports.
fn failures(what: Break, names: &[&str]) -> BTreeMap<&'static str, String> {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::Socket(fake::listen(dir.path(), what));
    let runner = Runner::new(target, DeviceType::RNG, 1).unwrap();
    let mut failures = BTreeMap::new();
    for check in all().filter(|check| names.is_empty() || names.contains(&check.name)) {
        let finding = runner.run(check);
        match &finding.outcome {
            Outcome::Fail(_) | Outcome::Untried(_) => {
                let report = Text { colour: false }.finding(&finding, &runner);
                failures.insert(check.name, report);
            }
            Outcome::Skip(reason) => {
                assert!(names.is_empty(), "{} does not apply: {reason}", check.name);
            }
            Outcome::Pass => {}
        }
    }
    failures
}

#[test]
fn a_sound_backend_passes() {
    let failures = failures(Break::Nothing, &[]);
    let reports: Vec<_> = failures.into_values().collect();
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

/// Most of these wait for a deadline; but what watches for something late wants a processor.
const AT_ONCE: usize = 10;

/// The breaks that their checks do not find.
fn missed_of(breaks: &'static [(Break, &'static str)]) -> Vec<String> {
    std::thread::scope(|scope| {
        let run = |(what, name): &'static (Break, &'static str)| {
            scope.spawn(move || {
                let is_found = failures(*what, &[name]).contains_key(name);
                (!is_found).then(|| format!("{what:?} passes {name}"))
            })
        };
        let threads: Vec<_> = breaks.iter().map(run).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.flatten().collect()
    })
}

#[test]
fn each_break_fails_the_check_that_names_its_rule() {
    let missed: Vec<String> = BREAKS.chunks(AT_ONCE).flat_map(missed_of).collect();
    println!(
        "{} of {} breaks found",
        BREAKS.len() - missed.len(),
        BREAKS.len()
    );
    assert!(missed.is_empty(), "{missed:#?}");
}

/// All checks of one backend take no longer.
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn checks_of_a_backend_that_never_answers_end_in_time_and_say_so() {
    let silent = [
        (Break::UsesNothing, "queue 0: no buffer came back within"),
        (
            Break::AnswersNothing,
            "the peer did not send a message within",
        ),
    ];
    std::thread::scope(|scope| {
        for (what, found) in silent {
            scope.spawn(move || {
                let begun = Instant::now();
                let reports = failures(what, &[]);
                println!("{what:?}: {} fail in {:?}", reports.len(), begun.elapsed());
                assert!(begun.elapsed() < BOUND, "{what:?}: {:?}", begun.elapsed());
                let said = reports.values().filter(|report| report.contains(found));
                assert!(said.count() > reports.len() / 2, "{what:?}");
            });
        }
    });
}
