//! All checks, in the order in which they are run.

use super::types::Check;
use super::{
    ack, blk, config, console, fs, gpio, hostile, i2c, inflight, input, log, memory, message,
    negotiation, net, net_control, net_receive, queues, reconnect, ring, ring_reset, rng, scsi,
    sound, state, status, vring, vsock,
};

/// By theme: what comes first is what the others rest upon.
const THEMES: &[&[Check]] = &[
    negotiation::CHECKS,
    ack::CHECKS,
    message::malformed::CHECKS,
    message::stream::CHECKS,
    message::tables::CHECKS,
    message::files::CHECKS,
    memory::CHECKS,
    vring::start::CHECKS,
    vring::files::CHECKS,
    vring::stop::CHECKS,
    ring::CHECKS,
    queues::CHECKS,
    ring_reset::CHECKS,
    config::CHECKS,
    status::CHECKS,
    hostile::CHECKS,
    reconnect::CHECKS,
    inflight::CHECKS,
    log::CHECKS,
    state::CHECKS,
    blk::offered::CHECKS,
    blk::bounds::CHECKS,
    blk::requests::CHECKS,
    blk::write::CHECKS,
    blk::cache::CHECKS,
    rng::CHECKS,
    net::CHECKS,
    net_control::CHECKS,
    net_receive::CHECKS,
    console::CHECKS,
    fs::CHECKS,
    vsock::CHECKS,
    scsi::CHECKS,
    input::CHECKS,
    sound::CHECKS,
    gpio::CHECKS,
    i2c::CHECKS,
];

pub fn all() -> impl Iterator<Item = &'static Check> {
    THEMES.iter().flat_map(|theme| theme.iter())
}

/// That the headings of all checks are as reports and patterns expect them.
#[cfg(test)]
pub fn assert_sound(headings: impl Iterator<Item = super::types::Heading>) {
    let mut names = std::collections::HashSet::new();
    for check in headings {
        assert!(names.insert(check.name), "{} is there twice", check.name);
        let parts: Vec<_> = check.name.split('.').collect();
        assert!(matches!(parts[..], [theme, rule] if !theme.is_empty() && !rule.is_empty()));
        assert!(!check.rule.is_empty() && !check.rule.ends_with('.'));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_unique_and_have_a_theme() {
        super::assert_sound(super::all().map(super::Check::heading));
    }
}
