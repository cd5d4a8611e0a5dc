//! Suggestions for a mistyped command.

/// Most names that are suggested.
const MOST: usize = 3;

/// Those of `names` that are nearest to `typed`, if any is near.
pub(super) fn names<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<_> = names
        .filter_map(|name| Some((distance(typed, name)?, name)))
        .collect();
    near.sort();
    let best = near.first().map(|(distance, _)| *distance);
    near.retain(|(distance, _)| Some(*distance) == best);
    near.into_iter().map(|(_, name)| name).take(MOST).collect()
}

/// How far `typed` is from `name` or from a word of it; `None` if it is another thing.
fn distance(typed: &str, name: &str) -> Option<usize> {
    let parts = name.split(' ').chain([name]);
    let near = parts.filter_map(|part| {
        let distance = strsim::osa_distance(typed, part);
        // One slip in three letters, or the beginning of it.
        let begins = typed.len() > 1 && part.starts_with(typed);
        (begins || distance <= typed.len().min(part.len()) / 3).then_some(distance)
    });
    near.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_beginnings_are_near() {
        let all = ["info cpus", "info registers", "lx ps", "reset", "xp"];
        for (typed, near) in [
            ("info register", &["info registers"][..]),
            ("infp cpus", &["info cpus"]),
            ("registers", &["info registers"]),
            ("rest", &["reset"]),
            ("lx pss", &["lx ps"]),
            ("reg", &["info registers"]),
            ("inf", &["info cpus", "info registers"]),
            ("q", &[]),
            ("", &[]),
            ("nothing like it", &[]),
        ] {
            assert_eq!(names(typed, all.into_iter()), near, "{typed}");
        }
    }
}
