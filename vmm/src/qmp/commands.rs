//! The commands, but for those that have to do with files.

use host_io::errors::chain;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::error::QmpError;
use super::hmp;
use crate::control::{Control, RunError};
use crate::power::PowerRequest;
use crate::vcpu;
use crate::vcpus::Group;

/// The version of QEMU whose QMP this is.
pub fn version() -> Value {
    let package = concat!("Outboard ", env!("CARGO_PKG_VERSION"));
    json!({ "qemu": { "major": 10, "minor": 0, "micro": 0 }, "package": package })
}

pub fn carry_out(
    control: &Control,
    command: &str,
    arguments: Arguments,
) -> Result<Value, QmpError> {
    if command == "human-monitor-command" {
        return human(control, arguments);
    }
    let run: fn(&Control) -> Result<Value, QmpError> = match command {
        "query-status" => |control| Ok(status(&control.vcpus().group())),
        "query-target" => |_| Ok(json!({ "arch": "x86_64" })),
        "query-version" => |_| Ok(version()),
        "query-cpus-fast" => cpus,
        "stop" => |control| changed(control.pause()),
        "cont" => |control| changed(control.resume()),
        "system_reset" => reset,
        // Done when the answer is out.
        "quit" => |_| Ok(json!({})),
        "inject-nmi" => nmi,
        _ => {
            let text = format!("The command {command} has not been found");
            return Err(QmpError::NoCommand(text));
        }
    };
    arguments.end()?;
    run(control)
}

fn status(group: &Group<'_>) -> Value {
    let status = match (group.is_stopped(), group.is_debugged()) {
        (false, _) => "running",
        (true, false) => "paused",
        (true, true) => "debug",
    };
    json!({ "status": status, "running": !group.is_stopped() })
}

fn changed(result: Result<(), RunError>) -> Result<Value, QmpError> {
    result.map_err(|error| QmpError::generic(chain(&error)))?;
    Ok(json!({}))
}

fn reset(control: &Control) -> Result<Value, QmpError> {
    control.power().request(PowerRequest::UserReset);
    Ok(json!({}))
}

fn nmi(control: &Control) -> Result<Value, QmpError> {
    let injected = control.vcpus().inject_nmi();
    injected.map_err(|error| QmpError::generic(chain(&error)))?;
    Ok(json!({}))
}

fn cpus(control: &Control) -> Result<Value, QmpError> {
    let vcpus = (0..).zip(control.vcpus().handles());
    let cpus = vcpus.map(|(index, handle): (usize, _)| {
        let thread = handle.request(|_| thread_id()).map_err(unreachable)?;
        Ok(json!({
            "cpu-index": index,
            "thread-id": thread,
            "qom-path": format!("/machine/unattached/cpu[{index}]"),
            "target": "x86_64",
        }))
    });
    cpus.collect()
}

/// Linux's number of the thread that asks: the last part of where this link leads. 0 without
/// /proc.
fn thread_id() -> u64 {
    let own = std::fs::read_link("/proc/thread-self").ok();
    let number = own.and_then(|own| own.file_name()?.to_str()?.parse().ok());
    number.unwrap_or(0)
}

fn unreachable(error: vcpu::Error) -> QmpError {
    QmpError::generic(chain(&error))
}

fn human(control: &Control, mut arguments: Arguments) -> Result<Value, QmpError> {
    let line = arguments.text("command-line")?;
    let cpu = arguments.optional_number("cpu-index")?.unwrap_or(0);
    arguments.end()?;
    let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
    let output = hmp::run(control, cpu, &line)?;
    // Lines end as on a terminal.
    Ok(output.replace('\n', "\r\n").into())
}
