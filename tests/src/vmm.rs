//! Starting `outboard`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Line, Process, Stream};
use crate::{DEADLINE, program};

/// The arguments of `outboard run`, put together.
pub struct Vmm {
    command: Command,
    gdb: Option<PathBuf>,
}

impl Vmm {
    /// A machine with this kernel and 64 MiB; more with the methods below.
    pub fn new(kernel: impl AsRef<Path>) -> Self {
        let mut command = Command::new(program::own("outboard"));
        command.env("RUST_LOG", "info").env("NO_COLOR", "1");
        command.arg("run").arg("--kernel").arg(kernel.as_ref());
        Self { command, gdb: None }.arg("--memory", "64M")
    }

    /// Any option; a later one wins where only one counts.
    pub fn arg(mut self, option: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(option).arg(value);
        self
    }

    /// An option without a value.
    pub fn flag(mut self, option: &str) -> Self {
        self.command.arg(option);
        self
    }

    /// What is logged; `info` otherwise.
    pub fn log(mut self, filter: &str) -> Self {
        self.command.env("RUST_LOG", filter);
        self
    }

    /// Where it puts temporary files.
    pub fn temporary_files(mut self, directory: &Path) -> Self {
        self.command.env("TMPDIR", directory);
        self
    }

    /// Logs as a user's machine does who says nothing of it.
    pub fn log_by_default(mut self) -> Self {
        self.command.env_remove("RUST_LOG").env_remove("NO_COLOR");
        self
    }

    pub fn cmdline(self, cmdline: &str) -> Self {
        self.arg("--cmdline", cmdline)
    }

    pub fn cpus(self, cpus: usize) -> Self {
        self.arg("--cpus", cpus.to_string())
    }

    pub fn device(self, device_type: &str, socket: &Path) -> Self {
        self.arg(
            "--device",
            format!("{device_type},socket={}", socket.display()),
        )
    }

    /// Serves gdb on a socket in `dir`.
    pub fn gdb(mut self, dir: &Path) -> Self {
        let socket = dir.join("gdb.sock");
        self.gdb = Some(socket.clone());
        self.arg("--gdb", format!("unix:{}", socket.display()))
    }

    /// Holds the guest until gdb lets it go.
    pub fn gdb_wait(mut self) -> Self {
        self.command.arg("--gdb-wait");
        self
    }

    /// Holds it where Linux has found its place.
    pub fn gdb_wait_for_kernel(mut self) -> Self {
        self.command.arg("--gdb-wait=kernel");
        self
    }

    /// Lets gdb's `kill` end the guest.
    pub fn gdb_kill(mut self) -> Self {
        self.command.arg("--gdb-kill");
        self
    }

    pub fn start(self) -> Running {
        self.start_with(Stdio::piped(), Stdio::piped())
    }

    /// The same with other streams, which are not read if they are no new pipes.
    pub fn start_with(mut self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Running {
        Running {
            process: Process::start_with("outboard", &mut self.command, stdout, stderr),
            gdb: self.gdb,
        }
    }

    /// Runs to the end and expects `status`.
    pub fn run(self, status: i32) -> Running {
        let mut running = self.start();
        running.process.close_stdin();
        running.process.expect_exit(status, DEADLINE);
        running
    }
}

/// A running machine.
pub struct Running {
    pub process: Process,
    gdb: Option<PathBuf>,
}

impl Running {
    /// What the guest printed on its serial console.
    pub fn console(&self) -> String {
        self.process.printed(Stream::Out)
    }

    /// What the VMM itself printed.
    pub fn messages(&self) -> String {
        self.process.printed(Stream::Err)
    }

    /// The gdb socket.
    ///
    /// # Panics
    /// The machine was started without one.
    pub fn gdb_socket(&self) -> &Path {
        self.gdb
            .as_deref()
            .unwrap_or_else(|| panic!("the machine has no gdb socket"))
    }

    /// Counters of device `id`, from the last status report printed.
    pub fn device_counter(&self, id: &str, key: &str) -> u64 {
        let messages = self.messages();
        let prefix = format!("device {id} ");
        let line = messages
            .lines()
            .rev()
            .find(|line| line.starts_with(&prefix));
        counter(line, key)
            .unwrap_or_else(|| panic!("no {key} of {id}\n{}", self.process.transcript()))
    }

    /// Exits with this reason, from the last status report printed; 0 if it has none.
    pub fn exits(&self, reason: &str) -> u64 {
        let messages = self.messages();
        let line = messages
            .lines()
            .rev()
            .find(|line| line.starts_with("exits "));
        counter(line, reason).unwrap_or(0)
    }

    /// Milliseconds from the start of the process to the first guest instruction,
    /// which the VMM logs at its end.
    ///
    /// # Panics
    /// It has not ended, or never entered the guest.
    pub fn first_instruction_ms(&self) -> f64 {
        let messages = self.messages();
        let micros = messages
            .split_once("first guest instruction ")
            .and_then(|(_, after)| after.split_whitespace().next()?.parse::<f64>().ok());
        micros.unwrap_or_else(|| panic!("no first instruction\n{}", self.process.transcript()))
            / 1e3
    }

    /// The value of the Linux guest's last line `outboard-guest: KEY=VALUE`.
    ///
    /// # Panics
    /// There is no such line.
    pub fn guest_value(&self, key: &str) -> String {
        let console = self.console();
        let prefix = format!("outboard-guest: {key}=");
        let value = console
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(&prefix));
        value
            .unwrap_or_else(|| panic!("no {key}\n{}", self.process.transcript()))
            .to_owned()
    }

    /// Kills the supervised backend whose start `line` of the log tells.
    ///
    /// # Panics
    /// It tells none.
    #[allow(unsafe_code)]
    pub fn kill_backend(&self, line: &Line) {
        let pid = line.text.split_once("pid=");
        let pid = pid.and_then(|(_, pid)| pid.parse::<libc::pid_t>().ok());
        let pid = pid.unwrap_or_else(|| panic!("no pid in {}", line.text));
        // SAFETY: a system call on integers. The machine has no reason to end the
        // process, and waits for it only when this has killed it.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }

    /// Asks for a status report and waits for it.
    pub fn report_status(&self) {
        let before = self.process.lines().len();
        self.process.signal(libc::SIGUSR1);
        self.process.wait_for_after(before, "exits ", DEADLINE);
        // The lines behind it come in the same write; wait for the last device.
        let devices = self.messages().matches("connected to the backend").count();
        if devices > 0 {
            crate::process::wait_until("status report", DEADLINE, || {
                let lines = self.process.lines();
                lines[before..]
                    .iter()
                    .filter(|line| line.text.starts_with("device "))
                    .count()
                    >= devices
            });
        }
    }
}

fn counter(line: Option<&str>, key: &str) -> Option<u64> {
    let prefix = format!("{key}=");
    line?
        .split_whitespace()
        .find_map(|word| word.strip_prefix(&prefix))?
        .parse()
        .ok()
}
