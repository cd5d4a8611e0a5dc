//! How well-known backends take their socket, so that users need not write that into
//! their commands.

use std::path::Path;

/// The words that a command lacks.
enum Lacks {
    /// These words, at its end.
    Words(&'static [&'static str]),
    /// More in the word that has this in it.
    Within(&'static str, &'static str),
}

/// By the program's name, or its prefix where there is a star.
const PROGRAMS: [(&str, Lacks); 6] = [
    ("virtiofsd", Lacks::Words(&["--fd={listen-fd}"])),
    (
        "qemu-storage-daemon",
        Lacks::Within("type=vhost-user-", ",addr.type=fd,addr.str={listen-fd}"),
    ),
    (
        "passt",
        Lacks::Words(&["--vhost-user", "--foreground", "--socket", "{socket}"]),
    ),
    (
        "vhost-device-vsock",
        Lacks::Words(&["--socket", "{socket}"]),
    ),
    (
        "vhost-device-sound",
        Lacks::Words(&["--socket", "{socket}"]),
    ),
    (
        "vhost-device-*",
        Lacks::Words(&["--socket-path", "{socket}"]),
    ),
];

/// Options of these programs that name a socket.
const SOCKETS: [&str; 5] = ["--fd", "--socket", "--socket-path", "-s", "addr."];

/// Adds the words by which a known program is given its socket; `false` for an
/// unknown program.
///
/// # Errors
/// The command names a socket of its own, or has no place for one.
pub fn complete(words: &mut Vec<String>) -> Result<bool, String> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(false);
    };
    let program = file_name(program).to_owned();
    let Some((_, lacks)) = PROGRAMS.iter().find(|(name, _)| is_called(&program, name)) else {
        return Ok(false);
    };
    if let Some(option) = SOCKETS.iter().find(|option| names(arguments, option)) {
        return Err(format!(
            "{program} is given its socket from here; leave out {option}, or write {{socket}} \
             there in place of a path"
        ));
    }
    match lacks {
        Lacks::Words(lacking) => {
            for word in *lacking {
                if !words.iter().any(|given| given == word) {
                    words.push((*word).to_owned());
                }
            }
        }
        Lacks::Within(part, lacking) => {
            let word = words.iter_mut().find(|word| word.contains(part));
            let word = word.ok_or_else(|| format!("{program} has no word with {part:?}"))?;
            word.push_str(lacking);
        }
    }
    Ok(true)
}

/// Whether it is one of this project's.
pub fn is_own(program: &str) -> bool {
    file_name(program).starts_with("outboard-")
}

fn file_name(program: &str) -> &str {
    let name = Path::new(program).file_name();
    name.and_then(|name| name.to_str()).unwrap_or(program)
}

fn is_called(program: &str, name: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => program.starts_with(start),
        None => program == name,
    }
}

/// Whether the words have an option, with a value or without, or a key of one.
fn names(words: &[String], option: &str) -> bool {
    words.iter().any(|word| match option.strip_suffix('.') {
        Some(_) => word.contains(option),
        None => word == option || word.starts_with(&format!("{option}=")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str) -> Result<String, String> {
        let mut words: Vec<String> = text.split(' ').map(String::from).collect();
        complete(&mut words).map(|is_known| format!("{is_known} {}", words.join(" ")))
    }

    #[test]
    fn known_programs_are_given_their_socket_as_they_take_it() {
        for (written, run) in [
            (
                "/usr/libexec/virtiofsd --shared-dir d",
                "true /usr/libexec/virtiofsd --shared-dir d --fd={listen-fd}",
            ),
            (
                "qemu-storage-daemon --export type=vhost-user-blk,id=e",
                "true qemu-storage-daemon --export \
                 type=vhost-user-blk,id=e,addr.type=fd,addr.str={listen-fd}",
            ),
            (
                "vhost-device-vsock --guest-cid 3",
                "true vhost-device-vsock --guest-cid 3 --socket {socket}",
            ),
            (
                "vhost-device-rng -m 1",
                "true vhost-device-rng -m 1 --socket-path {socket}",
            ),
            (
                "passt --foreground",
                "true passt --foreground --vhost-user --socket {socket}",
            ),
            ("outboard-blk --path d", "false outboard-blk --path d"),
        ] {
            assert_eq!(completed(written).unwrap(), run);
        }
    }

    #[test]
    fn a_socket_of_its_own_is_refused() {
        for text in [
            "virtiofsd --socket-path=/run/s",
            "vhost-device-rng --socket-path /run/s",
            "qemu-storage-daemon --export type=vhost-user-blk,addr.type=unix,addr.path=/run/s",
        ] {
            assert!(completed(text).unwrap_err().contains("{socket}"), "{text}");
        }
        let without_export = completed("qemu-storage-daemon --blockdev x").unwrap_err();
        assert!(without_export.contains("vhost-user-"), "{without_export}");
    }
}
