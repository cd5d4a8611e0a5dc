//! Man pages: one for a program, and one for each command of `outboard`, which has the commands
//! below it too.

use std::io;

use clap::Command;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, italic, roman};

use crate::notes::{self, Notes};
use crate::synopsis::{self, is_shown};

/// A page of section 1.
pub struct Page {
    pub file: String,
    pub text: Vec<u8>,
}

/// The page of a program whose command line has been built, and those of its commands.
pub fn pages(program: &Command, date: &str) -> io::Result<Vec<Page>> {
    let mut pages = vec![page(program, date, true)?];
    for command in commands(program) {
        pages.push(page(command, date, false)?);
    }
    Ok(pages)
}

/// The commands that users see, without `help`.
fn commands(of: &Command) -> impl Iterator<Item = &Command> {
    of.get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, date: &str, is_program: bool) -> io::Result<Page> {
    let name = name(command);
    let man = Man::new(without_help(command));
    let mut text = Vec::new();
    title(name, date).to_writer(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis::section(command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(is_shown) {
        man.render_options_section(&mut text)?;
    }
    if is_program {
        list_commands(command).to_writer(&mut text)?;
    } else {
        describe_commands(command, &mut text)?;
    }
    notes_of(command, is_program).to_writer(&mut text)?;
    let file = format!("{name}.1");
    Ok(Page { file, text })
}

/// That of `clap_mangen` leaves out a date that there is none of, and what is behind it moves up.
fn title(name: &str, date: &str) -> Roff {
    let source = concat!("Outboard ", env!("CARGO_PKG_VERSION"));
    let mut roff = Roff::new();
    roff.control("TH", [&name.to_uppercase(), "1", date, source, "Outboard"]);
    // Names of programs and options are not to be hyphenated, and what is long leaves gaps.
    roff.control("nh", []);
    roff.control("ad", ["l"]);
    roff
}

/// `--help` and `--version` are no news in a man page, and `help` is no command of ours.
fn without_help(command: &Command) -> Command {
    let mut command = command.clone().disable_help_subcommand(true);
    for id in ["help", "version"] {
        if command.get_arguments().any(|arg| arg.get_id() == id) {
            command = command.mut_arg(id, |arg| arg.hide(true));
        }
    }
    if command
        .get_subcommands()
        .any(|sub| sub.get_name() == "help")
    {
        command = command.mut_subcommand("help", |help| help.hide(true));
    }
    command
}

/// The commands that have pages of their own.
fn list_commands(program: &Command) -> Roff {
    let mut roff = Roff::new();
    let mut heading = Some("COMMANDS");
    for command in commands(program) {
        if let Some(heading) = heading.take() {
            roff.control("SH", [heading]);
        }
        roff.control("TP", []);
        roff.text([bold(name(command)), roman("(1)")]);
        roff.text([roman(about(command))]);
    }
    roff
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string);
    about.unwrap_or_default()
}

/// The commands below a command, whole.
fn describe_commands(command: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    let mut heading = Some("COMMANDS");
    for sub in commands(command) {
        let mut roff = Roff::new();
        if let Some(heading) = heading.take() {
            roff.control("SH", [heading]);
        }
        roff.control("SS", [usage(sub).as_str()]);
        roff.text([roman(description(sub))]);
        roff.to_writer(text)?;
        if sub.get_arguments().any(is_shown) {
            let mut options = Vec::new();
            Man::new(without_help(sub)).render_options_section(&mut options)?;
            let options = String::from_utf8_lossy(&options);
            let below_heading = options.split_once(".SH OPTIONS\n").map(|(_, rest)| rest);
            text.extend_from_slice(below_heading.unwrap_or(&options).as_bytes());
        }
    }
    Ok(())
}

fn description(command: &Command) -> String {
    let long = command.get_long_about().map(ToString::to_string);
    long.unwrap_or_else(|| about(command))
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage: ").to_owned()
}

fn notes_of(command: &Command, is_program: bool) -> Roff {
    let page = name(command);
    let notes = notes::of(page);
    let mut roff = Roff::new();
    let statuses = notes.statuses.iter();
    let statuses = statuses.map(|(status, meaning)| (status.to_string(), *meaning));
    definitions(&mut roff, "EXIT STATUS", statuses);
    let owned = |(term, meaning): &(&str, &'static str)| ((*term).to_owned(), *meaning);
    definitions(
        &mut roff,
        "ENVIRONMENT",
        notes.environment.iter().map(owned),
    );
    definitions(&mut roff, "FILES", notes.files.iter().map(owned));
    see_also(&mut roff, command, is_program, &notes);
    roff
}

fn definitions<'a>(
    roff: &mut Roff,
    heading: &str,
    entries: impl Iterator<Item = (String, &'a str)>,
) {
    let mut heading = Some(heading);
    for (term, meaning) in entries {
        if let Some(heading) = heading.take() {
            roff.control("SH", [heading]);
        }
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(meaning)]);
    }
}

/// A program names its commands, and a command its program.
fn see_also(roff: &mut Roff, command: &Command, is_program: bool, notes: &Notes) {
    let mut names: Vec<String> = Vec::new();
    if is_program {
        names.extend(commands(command).map(|sub| name(sub).to_owned()));
    } else {
        names.push("outboard".to_owned());
    }
    names.extend(notes.see_also.iter().map(|name| (*name).to_owned()));
    names.sort();
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    for name in names {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([italic(name), roman("(1)")]);
    }
    roff.text(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs;

    fn all_pages() -> Vec<(String, String)> {
        let programs = programs::all().into_iter();
        let pages = programs.flat_map(|mut program| {
            program.build();
            pages(&program, "2026-12-01").unwrap()
        });
        let text = |page: Page| (page.file, String::from_utf8(page.text).unwrap());
        pages.map(text).collect()
    }

    #[test]
    fn every_page_has_its_sections() {
        let pages = all_pages();
        for file in [
            "outboard.1",
            "outboard-run.1",
            "outboard-ctl.1",
            "outboard-blk.1",
        ] {
            assert!(pages.iter().any(|(name, _)| name == file), "{file}");
        }
        for (file, text) in &pages {
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "\"EXIT STATUS\"",
                "\"SEE ALSO\"",
            ] {
                let found = text.matches(&format!(".SH {section}\n")).count();
                assert_eq!(found, 1, "{file}: {section}\n{text}");
            }
        }
    }

    #[test]
    fn pages_refer_to_pages_that_there_are() {
        let pages = all_pages();
        let names: Vec<_> = pages
            .iter()
            .map(|(file, _)| file.trim_end_matches(".1"))
            .collect();
        for page in &names {
            for other in notes::of(page).see_also {
                let is_ours = other.starts_with("outboard");
                assert!(!is_ours || names.contains(other), "{page}: {other}");
            }
        }
    }

    #[test]
    fn a_synopsis_has_values_and_alternatives() {
        let pages = all_pages();
        let (_, blk) = pages
            .iter()
            .find(|(file, _)| file == "outboard-blk.1")
            .unwrap();
        let alternatives = "{\\fB\\-\\-socket\\fR \\fIPATH\\fR | \\fB\\-\\-fd\\fR \\fIFD\\fR | ";
        assert!(blk.contains(alternatives), "{blk}");
        assert!(blk.contains("[\\fB\\-\\-queues\\fR \\fIN\\fR]"), "{blk}");
    }

    #[test]
    fn options_of_commands_below_commands_are_on_the_page() {
        let pages = all_pages();
        let (_, ctl) = pages
            .iter()
            .find(|(file, _)| file == "outboard-ctl.1")
            .unwrap();
        assert!(ctl.contains("\\-\\-reload"), "{ctl}");
        assert_eq!(ctl.matches(".SH OPTIONS").count(), 1, "{ctl}");
    }
}
