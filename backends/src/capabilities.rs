//! `--print-capabilities`: what management programs ask a backend for before they start it.
//!
//! After "Backend program conventions" of the vhost-user document; the JSON is
//! `VHostUserBackendCapabilities` of QEMU's `docs/interop/vhost-user.json`.

use std::process;

use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use serde::Serialize;

const OPTION: &str = "--print-capabilities";

/// A program's device type, and the options of that type's conventions that it takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Capabilities {
    /// The name in QEMU's `VHostUserBackendType`.
    #[serde(rename = "type")]
    pub device: &'static str,
    /// Optional features, each of which stands for an option; QEMU's schema defines some for
    /// block devices.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub features: &'static [&'static str],
}

/// The program's command line, or its end once it has printed its capabilities.
///
/// The conventions want all other options ignored then, missing and wrong ones too, so clap does
/// not see them. It knows the option for `--help` alone.
pub fn parse<C: Parser>(capabilities: Capabilities) -> C {
    if std::env::args_os().any(|argument| argument == OPTION) {
        println!("{}", capabilities.json());
        process::exit(0);
    }
    let mut matches = command::<C>().get_matches();
    C::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
}

/// The program's command line with this option.
pub fn command<C: CommandFactory>() -> Command {
    let option = Arg::new("print-capabilities")
        .long("print-capabilities")
        .action(ArgAction::SetTrue)
        .help("Print the device type and optional features as JSON and end; other options are ignored");
    C::command().arg(option)
}

impl Capabilities {
    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings are JSON")
    }
}
