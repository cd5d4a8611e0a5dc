//! `monitor explain`: why a device hangs.

use super::args::{Output, Words};
use super::error::MonitorError;
use crate::session::Session;

/// All devices, or the one that is named.
pub(super) fn explain(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let name = words.optional();
    words.end()?;
    let devices = session.guest.machine.inspect().explain()?;
    writeln!(
        out,
        "the guest is stopped: its drivers cannot do what they are said to have left undone"
    )?;
    let Some(name) = name else {
        if devices.is_empty() {
            writeln!(out, "no devices")?;
        }
        for device in devices {
            writeln!(out, "{device}")?;
        }
        return Ok(());
    };
    let by_name = devices.iter().find(|device| device.id == name);
    let number = name.parse().ok();
    let device = by_name.or_else(|| devices.get::<usize>(number?));
    let device = device.ok_or_else(|| MonitorError::NoDevice {
        found: name.to_owned(),
        names: names(&devices),
    })?;
    writeln!(out, "{device}")?;
    Ok(())
}

fn names(devices: &[diagnosis::Device]) -> String {
    let names: Vec<_> = devices.iter().map(|device| &*device.id).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}
