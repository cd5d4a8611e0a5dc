//! The device's state, on its way out and in ("Migrating back-end state").

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use vhost_user_wire::Message;

use crate::driver::wait_readable;

/// What a backend of this kind has to say.
const STATE: &[u8] = b"the state of outboard-check's device";
const SAVE: u32 = 0;
const LOAD: u32 = 1;
/// How long the frontend may take to hand a state over once it asks how that went.
const PATIENCE: Duration = Duration::from_secs(2);

/// What SET_DEVICE_STATE_FD has begun.
#[derive(Debug)]
pub enum Transfer {
    Saved,
    /// The end from which the state is read.
    Loading(File),
}

impl Transfer {
    /// # Errors
    /// The message is not whole, or nobody has defined its direction or phase.
    pub fn begin(message: &mut Message) -> Result<Self, String> {
        let (direction, phase) = direction_and_phase(&message.payload).ok_or("no direction")?;
        let mut file = message.take_file().map_err(|error| error.to_string())?;
        match (direction, phase) {
            // A pipe takes that much at once; its end is what tells the frontend.
            (SAVE, 0) => {
                file.write_all(STATE).map_err(|error| error.to_string())?;
                Ok(Self::Saved)
            }
            (LOAD, 0) => Ok(Self::Loading(file)),
            _ => Err(format!("direction {direction} in phase {phase}")),
        }
    }

    /// # Errors
    /// What was loaded is not what is saved.
    pub fn finish(self) -> Result<(), String> {
        let Self::Loading(mut file) = self else {
            return Ok(());
        };
        let mut loaded: Vec<u8> = Vec::new();
        let end = Instant::now() + PATIENCE;
        let mut bytes = [0; 256];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !wait_readable(&file, left).map_err(|error| error.to_string())? {
                return Err("CHECK_DEVICE_STATE, and the state has no end yet".into());
            }
            match file.read(&mut bytes).map_err(|error| error.to_string())? {
                0 => break,
                count => loaded.extend(&bytes[..count]),
            }
        }
        if loaded == STATE {
            return Ok(());
        }
        let (got, want) = (loaded.len(), STATE.len());
        Err(format!(
            "{got} bytes are loaded that are not the {want} that are saved"
        ))
    }
}

/// What SET_DEVICE_STATE_FD says.
pub fn direction_and_phase(payload: &[u8]) -> Option<(u32, u32)> {
    let (direction, rest) = payload.split_first_chunk()?;
    let phase = rest.first_chunk()?;
    Some((u32::from_ne_bytes(*direction), u32::from_ne_bytes(*phase)))
}
