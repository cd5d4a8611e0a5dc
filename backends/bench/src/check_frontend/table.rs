//! All checks of frontends, in the order in which they are run.

use super::types::FrontendCheck;
use super::{
    channel, features, gates, hang_up, header, hostile, inflight, memory, offer, order, reconnect,
    reply, ring, status, vring,
};

/// By theme: those that only look come first.
const THEMES: &[&[FrontendCheck]] = &[
    header::CHECKS,
    features::CHECKS,
    gates::CHECKS,
    order::CHECKS,
    memory::CHECKS,
    vring::CHECKS,
    status::CHECKS,
    inflight::CHECKS,
    ring::CHECKS,
    offer::CHECKS,
    reply::CHECKS,
    hang_up::CHECKS,
    reconnect::CHECKS,
    channel::CHECKS,
    hostile::CHECKS,
];

pub fn all() -> impl Iterator<Item = &'static FrontendCheck> {
    THEMES.iter().flat_map(|theme| theme.iter())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_have_a_theme() {
        let mut names = HashSet::new();
        for check in all() {
            assert!(names.insert(check.name), "{} is there twice", check.name);
            let parts: Vec<_> = check.name.split('.').collect();
            assert!(matches!(parts[..], [theme, rule] if !theme.is_empty() && !rule.is_empty()));
            assert!(!check.rule.is_empty() && !check.rule.ends_with('.'));
        }
    }
}
