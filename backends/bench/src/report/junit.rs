//! For test runners: JUnit's XML.

use std::fmt::Write;

use super::summary::Summary;
use super::text::Text;
use crate::check::{Finding, Outcome, Subject};

/// One test suite; the theme of a check is its class.
pub fn junit(findings: &[Finding], subject: &impl Subject) -> String {
    let summary = Summary::of(findings);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    _ = writeln!(
        xml,
        "<testsuite name=\"outboard-check\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" \
         time=\"{:.3}\">",
        findings.len(),
        summary.failed_must + summary.failed_should,
        summary.untried,
        summary.skipped,
        summary.time.as_secs_f64()
    );
    for finding in findings {
        xml += &case(finding, subject);
    }
    xml += "</testsuite>\n";
    xml
}

fn case(finding: &Finding, subject: &impl Subject) -> String {
    let name = finding.check.name;
    let (theme, rule) = name.split_once('.').unwrap_or(("", name));
    let seconds = finding.time.as_secs_f64();
    let head = format!("  <testcase classname=\"{theme}\" name=\"{rule}\" time=\"{seconds:.3}\"");
    match &finding.outcome {
        Outcome::Pass => format!("{head}/>\n"),
        Outcome::Skip(reason) => {
            let reason = escape(reason);
            format!("{head}><skipped message=\"{reason}\"/></testcase>\n")
        }
        Outcome::Untried(reason) => {
            let reason = escape(reason);
            format!("{head}><error message=\"{reason}\"/></testcase>\n")
        }
        Outcome::Fail(failure) => {
            let level = finding.check.level;
            let message = escape(&failure.found);
            let text = escape(&Text { colour: false }.finding(finding, subject));
            format!(
                "{head}><failure type=\"{level}\" message=\"{message}\">{text}</failure></testcase>\n"
            )
        }
    }
}

/// Also without what XML 1.0 cannot have at all.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(letter),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_well_formed() {
        assert_eq!(
            escape("a<b> & \"c\"\x1b\n"),
            "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}\n"
        );
    }
}
