//! The synopsis of a page. That of `clap_mangen` leaves out what options take.

use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};

/// The section.
pub fn section(command: &Command) -> Roff {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut line = vec![bold(name)];
    let groups = alternatives(command);
    let is_alternative = |arg: &Arg| {
        groups
            .iter()
            .flatten()
            .any(|it| it.get_id() == arg.get_id())
    };
    let single = command.get_arguments();
    let single = single.filter(|arg| is_shown(arg) && !is_alternative(arg));
    let (positional, options): (Vec<_>, Vec<_>) = single.partition(|arg| arg.is_positional());
    let (required, optional): (Vec<_>, Vec<_>) =
        options.into_iter().partition(|arg| arg.is_required_set());
    for group in &groups {
        one_of(group, &mut line);
    }
    for arg in required.into_iter().chain(optional).chain(positional) {
        one(arg, &mut line);
    }
    if command.has_subcommands() {
        let (open, close) = brackets(command.is_subcommand_required_set());
        line.extend([roman(format!(" {open}")), italic("COMMAND"), roman(close)]);
        line.push(roman(" ..."));
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(line);
    roff
}

/// Whether a page has more to say of it than all pages would.
pub fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

/// The groups of which exactly one option has to be given.
fn alternatives(command: &Command) -> Vec<Vec<&Arg>> {
    let groups = command.get_groups().filter(|group| group.is_required_set());
    let groups = groups.map(|group| {
        let named = group.get_args().filter_map(|id| {
            let mut arguments = command.get_arguments();
            arguments.find(|arg| arg.get_id() == id && is_shown(arg))
        });
        named.collect::<Vec<_>>()
    });
    groups.filter(|group| group.len() > 1).collect()
}

fn one_of(group: &[&Arg], line: &mut Vec<Inline>) {
    for (n, arg) in group.iter().enumerate() {
        line.push(roman(if n == 0 { " {" } else { " | " }));
        line.extend(spelt(arg));
    }
    line.push(roman("}"));
}

fn one(arg: &Arg, line: &mut Vec<Inline>) {
    let (open, close) = brackets(arg.is_required_set());
    line.push(roman(format!(" {open}")));
    line.extend(spelt(arg));
    line.push(roman(close));
}

fn brackets(is_required: bool) -> (&'static str, &'static str) {
    if is_required { ("", "") } else { ("[", "]") }
}

/// The option with its value, or the value alone.
fn spelt(arg: &Arg) -> Vec<Inline> {
    let mut parts = Vec::new();
    if let Some(long) = arg.get_long() {
        parts.push(bold(format!("--{long}")));
    } else if let Some(short) = arg.get_short() {
        parts.push(bold(format!("-{short}")));
    }
    let range = arg.get_num_args().unwrap_or_default();
    if !range.takes_values() {
        return parts;
    }
    let names = arg.get_value_names().unwrap_or_default();
    let value = names.iter().map(|name| name.as_str()).collect::<Vec<_>>();
    let value = value.join(" ");
    match (parts.is_empty(), range.min_values()) {
        (true, _) => parts.push(italic(value)),
        (false, 0) => parts.extend([roman("[="), italic(value), roman("]")]),
        (false, _) => parts.extend([roman(" "), italic(value)]),
    }
    parts
}
