//! Errors as users read them.

use std::error::Error;

/// An error and its causes on one line: an error does not repeat its source in its own text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_follow_in_order() {
        let inner = io::Error::from(io::ErrorKind::NotFound);
        let text = inner.to_string();
        assert_eq!(chain(&inner), text);
        assert_eq!(chain(&Outer(inner)), format!("cannot do it: {text}"));
    }
}
