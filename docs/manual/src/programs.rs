//! The programs that users start.

use backends::blk::args::BlkArgs;
use backends::capabilities;
use backends::console::args::ConsoleArgs;
use backends::net::args::NetArgs;
use backends::rng::args::RngArgs;
use clap::{Command, CommandFactory};
use vmm::cli::Cli;
use workbench::check_args::CheckArgs;

/// Their command lines.
pub fn all() -> [Command; 6] {
    [
        Cli::command(),
        capabilities::command::<BlkArgs>(),
        capabilities::command::<NetArgs>(),
        capabilities::command::<ConsoleArgs>(),
        capabilities::command::<RngArgs>(),
        CheckArgs::command(),
    ]
}
