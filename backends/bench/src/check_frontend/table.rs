//! All checks of frontends, in the order in which they are run.

use super::types::FrontendCheck;
use super::{
    channel, device_state, features, gates, hang_up, header, hostile, inflight, log, memory, offer,
    order, place, reconnect, reply, ring, shared_memory, status, vring,
};

/// By theme: those that only look come first.
const THEMES: &[&[FrontendCheck]] = &[
    header::CHECKS,
    features::CHECKS,
    gates::CHECKS,
    order::CHECKS,
    memory::CHECKS,
    place::CHECKS,
    vring::CHECKS,
    status::CHECKS,
    inflight::CHECKS,
    log::CHECKS,
    device_state::CHECKS,
    ring::CHECKS,
    offer::CHECKS,
    reply::CHECKS,
    hang_up::CHECKS,
    reconnect::CHECKS,
    channel::CHECKS,
    shared_memory::CHECKS,
    hostile::CHECKS,
    hostile::PACKED_CHECKS,
];

pub fn all() -> impl Iterator<Item = &'static FrontendCheck> {
    THEMES.iter().flat_map(|theme| theme.iter())
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_unique_and_have_a_theme() {
        crate::check::assert_sound(super::all().map(super::FrontendCheck::heading));
    }
}
