//! A command line that starts a backend, and how it is given its socket.

use crate::programs;

/// How a backend meets this program. A placeholder in the command says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// `{fd}`: the number of a descriptor that is a connected socket.
    Connected,
    /// `{listen-fd}`: the number of a descriptor that is a listening socket, with
    /// a connection waiting on it.
    Listening,
    /// `{socket}`: a path to listen on.
    Path,
}

impl Handover {
    const ALL: [(Self, &str); 3] = [
        (Self::Connected, "{fd}"),
        (Self::Listening, "{listen-fd}"),
        (Self::Path, "{socket}"),
    ];

    fn placeholder(self) -> &'static str {
        let found = Self::ALL.iter().find(|(handover, _)| *handover == self);
        found.map_or("", |(_, placeholder)| placeholder)
    }
}

/// A checked command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<String>,
    pub handover: Handover,
    /// Nothing says how the program takes its socket.
    is_guess: bool,
}

impl CommandLine {
    /// Splits `text` into words as a shell does, without expanding anything. Where it
    /// has no placeholder, a program that is known gets its own, and any other
    /// `--fd {fd}`, which this project's backends take.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = shlex::split(text)
            .ok_or_else(|| format!("{text:?} ends within quotes or after a backslash"))?;
        if words.is_empty() {
            return Err("the command is empty".into());
        }
        let is_complete = handover(&words)?.is_some() || programs::complete(&mut words)?;
        if !is_complete {
            words.extend(["--fd".into(), "{fd}".into()]);
        }
        Ok(Self {
            handover: handover(&words)?.unwrap_or(Handover::Connected),
            is_guess: !is_complete && !programs::is_own(&words[0]),
            words,
        })
    }

    /// Advice for the user if the program does not serve.
    pub fn hint(&self) -> &'static str {
        if self.is_guess {
            "; it was given a connected socket by --fd: if it takes another, write {listen-fd}, \
             for a descriptor, or {socket}, for a path, where its command has it"
        } else {
            ""
        }
    }

    pub fn program(&self) -> &str {
        &self.words[0]
    }

    /// The program's arguments with `value` in place of the placeholder.
    pub fn arguments(&self, value: &str) -> impl Iterator<Item = String> {
        let placeholder = self.handover.placeholder();
        self.words[1..]
            .iter()
            .map(move |word| word.replace(placeholder, value))
    }
}

/// How the words with their placeholder say that the socket is handed over.
fn handover(words: &[String]) -> Result<Option<Handover>, String> {
    let is_used = |placeholder: &str| words.iter().any(|word| word.contains(placeholder));
    let mut used = Handover::ALL
        .iter()
        .filter(|(_, placeholder)| is_used(placeholder));
    match (used.next(), used.next()) {
        (_, Some(_)) => Err("the command takes one of {fd}, {listen-fd} and {socket}".into()),
        (first, None) => Ok(first.map(|(handover, _)| *handover)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str, value: &str) -> (Handover, Vec<String>) {
        let command = CommandLine::parse(text).unwrap();
        (command.handover, command.arguments(value).collect())
    }

    #[test]
    fn the_socket_goes_where_the_placeholder_is() {
        let own = arguments("outboard-blk --path 'my disk.img'", "7");
        let words = ["--path", "my disk.img", "--fd", "7"].map(String::from);
        assert_eq!(own, (Handover::Connected, words.into()));
        let elsewhere = arguments("b --fd={fd} x", "7");
        assert_eq!(
            elsewhere,
            (Handover::Connected, vec!["--fd=7".into(), "x".into()])
        );
        let (handover, words) = arguments("qsd addr.type=fd,addr.str={listen-fd}", "9");
        assert_eq!(handover, Handover::Listening);
        assert_eq!(words, ["addr.type=fd,addr.str=9"]);
        let (handover, words) = arguments("vhost-device-rng --socket-path {socket}", "/a b");
        assert_eq!(handover, Handover::Path);
        assert_eq!(words, ["--socket-path", "/a b"]);
    }

    #[test]
    fn what_is_known_of_a_program_need_not_be_said() {
        let (handover, words) = arguments("virtiofsd --shared-dir d", "5");
        assert_eq!(handover, Handover::Listening);
        assert_eq!(words, ["--shared-dir", "d", "--fd=5"]);
        let hint = |text| CommandLine::parse(text).unwrap().hint();
        assert!(hint("some-backend").contains("{listen-fd}"));
        for known in [
            "virtiofsd",
            "/usr/bin/outboard-blk --path d",
            "other {socket}",
        ] {
            assert_eq!(hint(known), "", "{known}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let problem = |text| CommandLine::parse(text).unwrap_err();
        assert!(problem("").contains("empty"));
        assert!(problem("b 'x").contains("quotes"));
        assert!(problem("b {fd} {socket}").contains("one of"));
    }
}
