//! The VMM's errors in answer to the debugger.

use crate::address::{PhysAddr, VcpuId};

/// Why the VMM could not carry out a request of the debugger.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No RAM at this guest-physical address.
    #[error("no guest RAM at physical address {:#x}", .0.0)]
    NoRam(PhysAddr),
    /// No device answers, and why.
    #[error("physical address {:#x} cannot be read as a device's: {why}", .addr.0)]
    NoDevice { addr: PhysAddr, why: String },
    /// A device does not do it, and why.
    #[error("{what}")]
    Device {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This VMM does not have it.
    #[error("this VMM does not have {0}")]
    Unsupported(&'static str),
    /// The vCPU thread has ended or does not answer.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(VcpuId, String),
    /// The hypervisor refused.
    #[error("{what}")]
    Host {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

pub type Result<T> = std::result::Result<T, TargetError>;
