//! Files that the backend has mapped into the device's shared memory.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{Answer, Question};
use crate::check::{Fault, Level, Source, Verdict, demand};

macro_rules! mappings {
    ($($name:literal, $level:ident, $source:expr, $question:ident, $want:expr, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("shmem.", $name),
            level: Level::$level,
            source: $source,
            rule: $rule,
            method: Method::Act(|stage| ask(stage, Question::$question, $want)),
        }),*];
    };
}

const MAP: Source = Source::VhostUser("VHOST_USER_BACKEND_SHMEM_MAP");
const UNMAP: Source = Source::VhostUser("VHOST_USER_BACKEND_SHMEM_UNMAP");

mappings! {
    "map", Must, MAP, Map, &[true],
        "upon receiving the message, the front-end maps the file: it must respond with zero when the operation is completed";
    "unmap", Must, UNMAP, MapAndUnmap, &[true, true],
        "the front-end unmaps the given range; a reply is generated indicating whether unmapping succeeded";
    "map-over-a-mapping", Must, MAP, MapTwice, &[true, false],
        "mapping over an already existing map is not allowed and requests shall fail";
    "map-beyond-the-region", Must, MAP, MapBeyond, &[false],
        "the memory range in the request must correspond with a valid, free region: not beyond the size that GET_SHMEM_CONFIG returned";
    "map-without-a-region", Must, MAP, MapElsewhere, &[false],
        "the file is mapped into the region with the requested shmid: where there is none, the request fails";
    "unmap-a-part", Should, UNMAP, MapAndUnmapHalf, &[true, false],
        "the given range shall correspond to the entirety of a valid mapped region";
    "unmap-nothing", Should, UNMAP, Unmap, &[false],
        "the given range shall correspond to the entirety of a valid mapped region: where nothing is mapped, the request fails";
}

/// Each request of the question succeeds, or fails, as it should.
fn ask(stage: &Stage, question: Question, want: &[bool]) -> Verdict {
    if !stage.baseline().has(FrontendReq::SET_BACKEND_REQ_FD) {
        return Err(Fault::skip("it has no channel for the backend's requests"));
    }
    let more = Protocol::SHMEM | Protocol::BACKEND_SEND_FD;
    let offer = stage.offer().with_protocol(more.bits());
    let seen = stage.ask_with(&offer, question)?;
    let last = seen.history.seen().last();
    let has = |feature| last.is_some_and(|seen| seen.before.has_protocol(feature));
    if !has(Protocol::SHMEM) || !has(Protocol::REPLY_ACK) {
        return Err(Fault::skip("it does not negotiate SHMEM and REPLY_ACK"));
    }
    let answers = seen.history.answers();
    let got: Vec<_> = answers
        .iter()
        .map(|answer| answer.number == Some(0))
        .collect();
    // One that closes the channel over a request that it cannot serve has refused it.
    let is_cut = seen.history.has_channel_closed() && want.get(got.len()) == Some(&false);
    demand(got == want || is_cut && want.starts_with(&got), || {
        let numbers: Vec<_> = answers.iter().map(number).collect();
        format!("the answers to {question:?} are {}", numbers.join(", "))
    })
}

fn number(answer: &Answer) -> String {
    answer
        .number
        .map_or("no number".into(), |number| number.to_string())
}
