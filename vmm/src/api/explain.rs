//! `GET /v1/explain`, and what `outboard explain --api` makes of it.

use diagnosis::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::{Status, problem};
use super::{commands, devices};
use crate::control::Control;
use crate::explain::explain;
use crate::transports::SharedTransport;

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whether the guest runs.
    state: String,
    devices: Vec<Device>,
}

impl Report {
    /// As people read it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.state != "running" {
            text = format!(
                "the guest is {}: its drivers cannot do what they are said to have left undone\n",
                self.state
            );
        }
        let devices: Vec<_> = self.devices.iter().map(Device::to_string).collect();
        match devices.is_empty() {
            true => text + "no devices",
            false => text + &devices.join("\n"),
        }
    }
}

/// What is wrong with all devices.
pub fn all(control: &Control) -> (Status, Value) {
    report(control, control.transports())
}

/// What is wrong with device `id`.
pub fn one(control: &Control, id: &str) -> (Status, Value) {
    match devices::find(control, id) {
        Ok(shared) => report(control, std::slice::from_ref(shared)),
        Err(refused) => refused,
    }
}

fn report(control: &Control, transports: &[SharedTransport]) -> (Status, Value) {
    let report = Report {
        state: commands::machine_state(control).to_owned(),
        devices: explain(transports, control.memory()),
    };
    match serde_json::to_value(report) {
        Ok(value) => (Status::Ok, value),
        Err(error) => (Status::Failed, problem(error.to_string())),
    }
}
