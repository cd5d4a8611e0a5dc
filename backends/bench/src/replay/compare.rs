//! The first difference between two answers to the same request.

use std::ops::Range;

use super::rules::Rule;
use crate::recording::Used;

/// What a device has made of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes that it says it has written. `None` where a device that uses buffers in order has
    /// left it out.
    pub len: Option<u32>,
    /// The first bytes that it may write: as many as it says it has written, and maybe more.
    pub bytes: Vec<u8>,
    /// The last byte that it may write.
    pub last: Option<u8>,
    /// A later request of the queue that was completed before.
    pub overtaken_by: Option<u64>,
}

impl From<&Used> for Answer {
    fn from(used: &Used) -> Self {
        Self {
            len: Some(used.len),
            bytes: used.written.clone(),
            last: used.last,
            overtaken_by: None,
        }
    }
}

/// The most telling one: a request that failed has no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing { why: String },
    Status { expected: u8, found: u8 },
    Length { expected: u32, found: u32 },
    Content { at: usize },
    Order { overtaken_by: u64 },
}

/// `writable` is how many bytes the device may write.
pub fn compare(
    expected: &Answer,
    found: &Answer,
    writable: u64,
    rule: &Rule,
) -> Option<Difference> {
    if rule.has_status
        && let (Some(expected), Some(found)) = (expected.last, found.last)
        && expected != found
    {
        return Some(Difference::Status { expected, found });
    }
    if rule.length
        && let (Some(expected), Some(found)) = (expected.len, found.len)
        && expected != found
    {
        return Some(Difference::Length { expected, found });
    }
    let has_failed = rule.has_status && expected.last.is_some_and(|status| status != 0);
    if !has_failed && let Some(at) = content(expected, found, writable, rule) {
        return Some(Difference::Content { at });
    }
    let overtaken_by = found.overtaken_by.filter(|_| rule.order)?;
    Some(Difference::Order { overtaken_by })
}

/// A status is no content.
fn compared(writable: u64, rule: &Rule) -> Range<usize> {
    let end = writable.saturating_sub(rule.has_status.into());
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    rule.content.start..rule.content.end.min(end)
}

/// Where both have written and it is not the same.
fn content(expected: &Answer, found: &Answer, writable: u64, rule: &Rule) -> Option<usize> {
    let written = |answer: &Answer| {
        let len = answer.len.map_or(usize::MAX, |len| len as usize);
        len.min(answer.bytes.len())
    };
    let range = compared(writable, rule);
    let end = range.end.min(written(expected)).min(written(found));
    let silent = rule.silent(&expected.bytes, written(expected));
    let says = |at: &usize| !silent.iter().any(|part| part.contains(at));
    let mut places = (range.start..end).filter(says);
    places.find(|at| expected.bytes[*at] != found.bytes[*at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        content: 0..usize::MAX,
        length: true,
        order: true,
        has_status: true,
        sense: None,
    };

    fn answer(bytes: &[u8]) -> Answer {
        Answer {
            len: Some(bytes.len() as u32),
            bytes: bytes.to_vec(),
            last: bytes.last().copied(),
            overtaken_by: None,
        }
    }

    fn differ(expected: &[u8], found: &[u8], rule: &Rule) -> Option<Difference> {
        compare(
            &answer(expected),
            &answer(found),
            expected.len() as u64,
            rule,
        )
    }

    #[test]
    fn a_status_tells_more_than_a_length_and_that_more_than_content() {
        assert_eq!(differ(&[1, 2, 0], &[1, 2, 0], &RULE), None);
        let status = Difference::Status {
            expected: 0,
            found: 1,
        };
        assert_eq!(differ(&[1, 2, 0], &[3, 1], &RULE), Some(status));
        let length = Difference::Length {
            expected: 3,
            found: 2,
        };
        assert_eq!(differ(&[1, 2, 0], &[3, 0], &RULE), Some(length));
        let content = Difference::Content { at: 1 };
        assert_eq!(differ(&[1, 2, 0], &[1, 9, 0], &RULE), Some(content));
    }

    #[test]
    fn a_request_that_failed_has_no_content() {
        assert_eq!(differ(&[1, 2, 1], &[3, 4, 1], &RULE), None);
    }

    #[test]
    fn only_what_both_have_written_is_content() {
        let rule = Rule {
            length: false,
            has_status: false,
            ..RULE
        };
        assert_eq!(differ(&[1, 2, 3], &[1, 2], &rule), None);
        let content = Difference::Content { at: 1 };
        assert_eq!(differ(&[1, 2, 3], &[1, 3], &rule), Some(content));
        let rule = Rule {
            content: 0..1,
            ..rule
        };
        assert_eq!(differ(&[1, 2, 3], &[1, 3], &rule), None);
    }

    /// Four bytes of room for sense data, of which two are used, and of five for data three.
    #[test]
    fn what_a_scsi_device_leaves_free_says_nothing() {
        let rule = Rule {
            has_status: false,
            sense: Some(4),
            ..RULE
        };
        let header = [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        let with = |rest: [u8; 9]| [&header[..], &rest].concat();
        let before = with([1, 1, 0, 0, 3, 3, 3, 0, 0]);
        let differ = |rest| differ(&before, &with(rest), &rule);
        assert_eq!(differ([1, 1, 7, 7, 3, 3, 3, 7, 7]), None);
        let content = |at| Some(Difference::Content { at });
        assert_eq!(differ([1, 7, 0, 0, 3, 3, 3, 0, 0]), content(13));
        assert_eq!(differ([1, 1, 0, 0, 3, 3, 7, 0, 0]), content(18));
        // An answer that ends in the header, or says nonsense.
        assert_eq!(rule.silent(&header[..6], 6), [0..0, 0..0]);
        assert_eq!(rule.silent(&[0xff; 12], 12), [16..16, 16..usize::MAX]);
    }

    #[test]
    fn order_counts_where_it_is_fixed() {
        let late = Answer {
            overtaken_by: Some(7),
            ..answer(&[0])
        };
        let order = Difference::Order { overtaken_by: 7 };
        assert_eq!(compare(&answer(&[0]), &late, 1, &RULE), Some(order));
        let rule = Rule {
            order: false,
            ..RULE
        };
        assert_eq!(compare(&answer(&[0]), &late, 1, &rule), None);
    }
}
