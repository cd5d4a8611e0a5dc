//! Names with stars.

/// A check's name in which `*` stands for any characters.
#[derive(Clone, Debug)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn matches(&self, name: &str) -> bool {
        let parts: Vec<&str> = self.0.split('*').collect();
        let [first, middle @ .., last] = &parts[..] else {
            return self.0 == name;
        };
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        for part in middle {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        let matches = |pattern, name| Pattern::new(pattern).matches(name);
        assert!(matches("blk.flush", "blk.flush"));
        assert!(!matches("blk.flush", "blk.flush-offered"));
        assert!(matches("blk.*", "blk.flush"));
        assert!(matches("*.used-*", "packed.used-id"));
        assert!(matches("*", ""));
        assert!(!matches("a*a", "a"));
        assert!(!matches("vring.*", "blk.flush"));
    }
}
