//! The command line of `outboard-console`.

use clap::Parser;

use crate::cli::SocketArgs;
use crate::console::terminal::Target;
use crate::sandbox::SandboxArgs;

/// Give a virtual machine a console (Linux: console=hvc0) over vhost-user.
///
/// With --socket and --listen-fd it serves one frontend after another until SIGTERM, SIGINT, SIGHUP, or Ctrl-A x on a terminal (Ctrl-A h helps). Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-console", version)]
pub struct ConsoleArgs {
    #[command(flatten)]
    pub socket: SocketArgs,

    /// Where it goes: stdio, pty, file=PATH (output only) or unix=PATH (one client at a time)
    #[arg(long, value_name = "TARGET", default_value = "stdio")]
    pub terminal: Target,

    #[command(flatten)]
    pub sandbox: SandboxArgs,
}
