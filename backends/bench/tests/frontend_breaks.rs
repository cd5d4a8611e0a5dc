//! Checks of frontends fail when they should: a small frontend is sound, and with one break in it
//! the check that names the broken rule fails.

mod fake_frontend;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use fake_frontend::breaks::Break;
use workbench::backend::FrontendSource;
use workbench::check::Outcome;
use workbench::check_frontend::{FrontendCheck, FrontendRunner, all};
use workbench::device::DeviceType;
use workbench::report::Text;

/// Each break, and the checks that have to find it.
const BREAKS: &[(Break, &[&str])] = &[
    (Break::Nothing, &[]),
    (Break::Version2, &["header.version"]),
    (Break::ReplyFlag, &["header.no-reply-flag"]),
    (Break::ReservedFlag, &["header.reserved-flags"]),
    (Break::AsksForAcks, &["header.need-reply-when-negotiated"]),
    (Break::Sends(99), &["header.known-requests"]),
    (Break::LongPayload, &["header.size"]),
    (Break::NoMemoryFile, &["header.files"]),
    (Break::EventAsMemory, &["header.kinds-of-files"]),
    (Break::DoesNotAsk, &["features.asked-before-accepted"]),
    (Break::AcceptsAll, &["features.only-offered"]),
    (Break::WithoutVersion1, &["features.version-1"]),
    (Break::FeaturesLate, &["features.before-rings"]),
    (
        Break::FeaturesWhileRunning,
        &["features.not-changed-while-running"],
    ),
    (
        Break::ProtocolUnasked,
        &["features.protocol-asked-when-offered"],
    ),
    (
        Break::ProtocolBlind,
        &["features.protocol-asked-before-accepted"],
    ),
    (Break::ProtocolAll, &["features.protocol-only-offered"]),
    (Break::ProtocolLate, &["features.protocol-before-rings"]),
    (Break::Sends(17), &["gate.mq"]),
    (Break::Sends(24), &["gate.config"]),
    (Break::Sends(31), &["gate.inflight"]),
    (Break::Sends(34), &["gate.reset-device"]),
    (Break::Sends(39), &["gate.status"]),
    (Break::Sends(36), &["gate.memory-slots"]),
    (Break::Sends(21), &["gate.backend-requests"]),
    (Break::Sends(6), &["gate.log"]),
    (Break::Sends(43), &["gate.device-state"]),
    (Break::Sends(44), &["gate.shared-memory"]),
    (Break::Sends(19), &["gate.rarp"]),
    (Break::Sends(20), &["gate.mtu"]),
    (Break::Sends(35), &["gate.in-band"]),
    (Break::Sends(23), &["gate.endian"]),
    (Break::Sends(28), &["gate.postcopy"]),
    (Break::Sends(27), &["gate.crypto"]),
    (Break::Sends(4), &["order.no-reset-owner"]),
    (Break::OwnerTwice, &["order.owner-once"]),
    (Break::OwnerLate, &["order.owner-first"]),
    (Break::MemoryLate, &["order.memory-before-addresses"]),
    (Break::NoSize, &["order.size-before-start"]),
    (Break::NoAddresses, &["order.addresses-before-start"]),
    (Break::NoBase, &["order.base-before-start"]),
    (Break::EnablesEarly, &["order.addresses-before-enable"]),
    (
        Break::SizeWhileRunning,
        &["order.started-rings-keep-their-place"],
    ),
    (Break::StartsTwice, &["order.no-second-start"]),
    (Break::GuestOverlap, &["memory.guest-addresses-apart"]),
    (Break::UserOverlap, &["memory.user-addresses-apart"]),
    (Break::EmptyRegion, &["memory.region-has-a-size"]),
    (Break::ShortFile, &["memory.region-in-its-file"]),
    (Break::OddOffset, &["memory.offset-of-whole-pages"]),
    (Break::NineRegions, &["memory.at-most-8-regions"]),
    (Break::EmptyTable, &["memory.table-has-regions"]),
    (Break::TooManyRegions, &["memory.within-slots"]),
    (Break::UserNotGuest, &["memory.guest-for-user-addresses"]),
    (Break::SlotsNotAsked, &["memory.slots-asked-for"]),
    (Break::RemovesUnknown, &["memory.removes-what-there-is"]),
    (Break::RemovesWithFile, &["memory.removes-without-file"]),
    (Break::OddSize, &["vring.size-is-a-power-of-2"]),
    (Break::HugeSize, &["vring.size-at-most-32768"]),
    (Break::FarIndex, &["vring.index-within-queues"]),
    (
        Break::Misaligned(0),
        &["vring.descriptors-aligned", "packed.ring-aligned"],
    ),
    (
        Break::Misaligned(1),
        &[
            "vring.available-aligned",
            "packed.driver-event-aligned",
            "ring.can-be-reached",
        ],
    ),
    (
        Break::Misaligned(2),
        &["vring.used-aligned", "packed.device-event-aligned"],
    ),
    (Break::OutsideOfMemory, &["vring.in-memory"]),
    (Break::PartsOverlap, &["vring.parts-apart"]),
    (Break::AddressFlags, &["vring.address-flags"]),
    (Break::PackedBaseFar, &["packed.base-in-ring"]),
    (
        Break::PackedWrapZero,
        &["packed.begins-with-wrap-counters-of-1"],
    ),
    (Break::BaseHighBits, &["vring.base-reserved-bits"]),
    (Break::BaseOther, &["vring.base-as-returned"]),
    (Break::StopNumber, &["vring.stop-reserved-number"]),
    (Break::StopsUnknown, &["vring.stop-of-a-known-ring"]),
    (Break::EnablesWithTwo, &["vring.enable-is-0-or-1"]),
    (
        Break::EnablesUnnegotiated,
        &["vring.enable-when-negotiated"],
    ),
    (Break::NeverEnables, &["vring.started-rings-are-enabled"]),
    (Break::EventBits, &["vring.event-bits"]),
    (Break::NoCall, &["vring.call-before-start"]),
    (Break::OneEvent, &["vring.events-of-their-own"]),
    (Break::NoKickAfterStart, &["vring.kick-after-start"]),
    (Break::StatusBits, &["status.known-bits"]),
    (Break::StatusOrder, &["status.in-order"]),
    (Break::StatusClears, &["status.no-bit-cleared"]),
    (
        Break::FeaturesOkFirst,
        &["status.features-before-features-ok"],
    ),
    (
        Break::FeaturesAfterOk,
        &["status.no-features-after-features-ok"],
    ),
    (Break::NoDriverOk, &["status.driver-ok-for-rings"]),
    (Break::ConfigFlags, &["config.flags"]),
    (Break::ConfigEmpty, &["config.size"]),
    (Break::InflightOther, &["inflight.given-back"]),
    (Break::InflightLate, &["inflight.before-start"]),
    (Break::InflightSmall, &["inflight.covers-the-queues"]),
    (Break::InflightForgotten, &["inflight.set-after-get"]),
    (Break::NeverKicks, &["ring.kicks-arrive"]),
    (Break::IndexWild, &["ring.index-in-step"]),
    (Break::HeadWild, &["ring.descriptors-in-table"]),
    (Break::Loop, &["ring.descriptors-in-table"]),
    (Break::IndirectUnnegotiated, &["ring.indirect-tables"]),
    (Break::LogSmall, &["log.covers-memory"]),
    (Break::LogShortFile, &["log.in-its-file"]),
    (Break::LogLate, &["log.base-before-log-all"]),
    (Break::LogUsedBeyond, &["log.used-ring-in-log"]),
    (Break::StatePhase, &["state.direction-and-phase"]),
    (Break::StateWhileRunning, &["state.while-stopped"]),
    (Break::StateUnchecked, &["state.checked"]),
    (Break::StateAltered, &["state.carried-as-it-is"]),
    (Break::BufferOutside, &["ring.buffers-in-memory"]),
    (Break::WritableFirst, &["ring.readable-first"]),
    (Break::RandomToADisk, &["ring.requests-are-whole"]),
    (Break::AbortsInUse, &["offer.everything"]),
    (Break::NeedsBit30, &["offer.no-protocol-features"]),
    (
        Break::CrashesWithoutConfig,
        &["offer.no-protocol-feature", "offer.without-config"],
    ),
    (Break::NeedsAcks, &["offer.without-reply-ack"]),
    (Break::NeedsMq, &["offer.without-mq"]),
    (Break::NeedsInflight, &["offer.without-inflight"]),
    (Break::NeedsSlots, &["offer.without-memory-slots"]),
    (Break::NeedsStatus, &["offer.without-status"]),
    (Break::NeedsChannel, &["offer.without-backend-requests"]),
    (
        Break::NeedsEventIdx,
        &[
            "offer.without-event-idx",
            "offer.least-features",
            "offer.nothing",
        ],
    ),
    (Break::NeedsIndirect, &["offer.without-indirect"]),
    (Break::AcceptsReserved, &["offer.unknown-features"]),
    (Break::FailsOnReserved, &["offer.unknown-features"]),
    (
        Break::AcceptsUnknownProtocol,
        &[
            "offer.unknown-protocol-features",
            "offer.in-band-alone",
            "offer.inflight-base-alone",
        ],
    ),
    (Break::IgnoresSlots, &["offer.one-memory-slot"]),
    (Break::IgnoresQueues, &["offer.no-queue"]),
    (Break::MakesAllQueues, &["offer.queues-without-end"]),
    (
        Break::Impatient,
        &[
            "reply.late-features",
            "reply.late-acknowledgement",
            "reply.late-start",
            "reply.late-stop",
        ],
    ),
    (
        Break::DeafWhileItWaits,
        &["reply.missing", "reply.missing-stop"],
    ),
    (
        Break::TrustsRequest,
        &[
            "reply.to-another-request",
            "reply.protocol-features-to-another-request",
            "reply.acknowledgement-to-another-request",
        ],
    ),
    (Break::TrustsFlag, &["reply.without-reply-flag"]),
    (Break::TrustsVersion, &["reply.another-version"]),
    (Break::TrustsLength, &["reply.too-long"]),
    (
        Break::TrustsShort,
        &["reply.too-short", "reply.queue-num-too-short"],
    ),
    (Break::WaitsForAll, &["reply.huge"]),
    (
        Break::TrustsConfig,
        &["reply.config-too-long", "reply.config-too-short"],
    ),
    (
        Break::IgnoresRefusals,
        &[
            "reply.features-refused",
            "reply.memory-region-refused",
            "reply.vring-addresses-refused",
        ],
    ),
    (Break::IgnoresRefusedTable, &["reply.memory-table-refused"]),
    (
        Break::AbortsWhenRefused,
        &[
            "reply.config-refused",
            "reply.stop-too-short",
            "reply.inflight-too-short",
            "reply.vring-kick-refused",
            "reply.vring-enable-refused",
            "reply.status-refused",
            "reply.channel-refused",
        ],
    ),
    (
        Break::AbortsWhenLeft,
        &[
            "hang-up.at-features",
            "hang-up.at-set-features",
            "hang-up.at-protocol-features",
            "hang-up.at-set-protocol-features",
            "hang-up.at-owner",
            "hang-up.at-queue-num",
            "hang-up.at-config",
            "hang-up.at-memory-slots",
            "hang-up.at-backend-channel",
            "hang-up.at-inflight",
            "hang-up.at-set-inflight",
            "hang-up.at-memory-region",
            "hang-up.at-vring-num",
            "hang-up.at-vring-base",
            "hang-up.at-vring-addresses",
            "hang-up.at-vring-call",
            "hang-up.at-vring-kick",
            "hang-up.at-vring-enable",
            "hang-up.at-status",
            "hang-up.at-get-status",
            "hang-up.at-stop",
            "hang-up.within-features",
            "hang-up.within-config",
            "hang-up.within-stop",
        ],
    ),
    (Break::AbortsWhenLeftWithTable, &["hang-up.at-memory-table"]),
    (Break::RemembersFeatures, &["reconnect.negotiates-again"]),
    (Break::RemembersMemory, &["reconnect.shares-memory-again"]),
    (Break::OtherInflight, &["reconnect.gives-inflight-back"]),
    (Break::StartsNothingAgain, &["reconnect.starts-rings-again"]),
    (Break::AnswersOne, &["channel.config-change"]),
    (Break::AnswersAll, &["channel.no-answer-unasked"]),
    (Break::IgnoresUnknown, &["channel.unknown-request"]),
    (
        Break::AcceptsUnknown,
        &[
            "channel.map-without-feature",
            "channel.call-without-feature",
        ],
    ),
    (
        Break::AbortsOnOddRequest,
        &[
            "channel.too-long",
            "channel.huge",
            "channel.cut",
            "channel.closed",
        ],
    ),
    (Break::RefusesMappings, &["shmem.map", "shmem.unmap"]),
    (
        Break::AcceptsMappings,
        &[
            "shmem.map-over-a-mapping",
            "shmem.map-beyond-the-region",
            "shmem.map-without-a-region",
            "shmem.unmap-a-part",
            "shmem.unmap-nothing",
        ],
    ),
    (
        Break::AbortsOnManyRequests,
        &["channel.many-config-changes"],
    ),
    (
        Break::AbortsOnBadRing,
        &[
            "hostile.used-index-jumps",
            "hostile.used-id-too-large",
            "hostile.used-twice",
            "packed.used-id-unknown",
            "packed.used-twice",
            "packed.used-without-end",
        ],
    ),
    (
        Break::TrustsUsedLength,
        &[
            "hostile.used-length-too-long",
            "packed.used-length-too-long",
        ],
    ),
    (Break::AbortsOnSpuriousCall, &["hostile.spurious-call"]),
    (Break::HangsOnSilence, &["hostile.nothing-used"]),
];

/// In the environment of a process that is to play a frontend: the number of its break.
const PLAY: &str = "OUTBOARD_FRONTEND_BREAK";

/// This test is a frontend where it is told so. The path is the last argument.
#[test]
fn as_a_frontend() {
    let Ok(number) = std::env::var(PLAY) else {
        return;
    };
    let (what, _) = BREAKS[number.parse::<usize>().unwrap()];
    let path = std::env::args().next_back().unwrap();
    fake_frontend::run(Path::new(&path), what);
}

/// More than a kick may take.
const LINGER: Duration = Duration::from_millis(1500);

fn runner(number: usize) -> FrontendRunner {
    let test = std::env::current_exe().unwrap();
    let command = format!(
        "env {PLAY}={number} '{}' --exact as_a_frontend --nocapture {{socket}}",
        test.display()
    );
    let source = FrontendSource::command(&command).unwrap();
    let device_type = match BREAKS[number].0 {
        Break::RandomToADisk => DeviceType::BLK,
        _ => DeviceType::RNG,
    };
    FrontendRunner::watching(source, device_type, LINGER).unwrap()
}

/// The report of a check that failed.
fn failure(runner: &FrontendRunner, check: &FrontendCheck) -> Result<String, String> {
    let finding = runner.run(check);
    match &finding.outcome {
        Outcome::Fail(_) => Ok(Text { colour: false }.finding(&finding, runner)),
        Outcome::Pass => Err("passes".into()),
        Outcome::Skip(reason) => Err(format!("is skipped ({reason})")),
        Outcome::Untried(reason) => Err(format!("could not be tried ({reason})")),
    }
}

#[test]
fn a_sound_frontend_passes() {
    let runner = runner(0);
    let reports: Vec<_> = all()
        .filter_map(|check| failure(&runner, check).ok())
        .collect();
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

/// What the checks of a break do not find.
fn missed(number: usize) -> Vec<String> {
    let (what, names) = BREAKS[number];
    let runner = runner(number);
    let mut missed = Vec::new();
    for name in names {
        let check = all().find(|check| check.name == *name);
        let check = check.unwrap_or_else(|| panic!("no check is called {name}"));
        if let Err(instead) = failure(&runner, check) {
            missed.push(format!("{what:?}: {name} {instead}"));
        }
    }
    missed
}

/// A check that no break makes fail would say nothing.
#[test]
fn each_check_has_a_break_that_it_finds() {
    let found: Vec<_> = BREAKS.iter().flat_map(|(_, names)| *names).collect();
    let unproven = all().filter(|check| !found.contains(&&check.name));
    let unproven: Vec<_> = unproven.map(|check| check.name).collect();
    assert!(unproven.is_empty(), "{unproven:?}");
}

/// Nearly all of the time goes into waiting.
const AT_ONCE: usize = 12;

#[test]
fn each_break_fails_the_checks_that_name_its_rule() {
    let (next, found) = (Mutex::new(1), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    if number >= BREAKS.len() {
                        return;
                    }
                    let missed = missed(number);
                    found.lock().unwrap().extend(missed);
                }
            });
        }
    });
    let missed = found.into_inner().unwrap();
    let all: usize = BREAKS.iter().map(|(_, names)| names.len()).sum();
    println!(
        "{} of {all} findings for {} breaks",
        all - missed.len(),
        BREAKS.len() - 1
    );
    assert!(missed.is_empty(), "{missed:#?}");
}
