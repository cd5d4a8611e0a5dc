//! Errors of commands.

use std::fmt;

use crate::error::TargetError;
use crate::linux::LookError;

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MonitorError {
    #[error("unknown command {command:?}{near}; \"monitor help\" lists all")]
    Unknown { command: String, near: String },
    #[error("{command} takes no argument, but there is {found:?}")]
    Argument {
        command: &'static str,
        found: String,
    },
    #[error(transparent)]
    Linux(#[from] LookError),
    #[error("the guest is running")]
    Running,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("there is more than the command takes: {0:?}")]
    TooMany(String),
    #[error(
        "{0:?} is not a number: write 4096, 0x1000 or $rip; for others: \
         eval \"monitor COMMAND %#lx\", (unsigned long)EXPRESSION"
    )]
    Number(String),
    #[error("no register {0:?} with at most 64 bits")]
    NoRegister(String),
    #[error("{found:?} is no vCPU of this guest: vcpu=0 to vcpu={last}")]
    NoVcpu { found: String, last: usize },
    #[error("{0:?} is no format: /[COUNT][SIZE] with size b, h, w or g")]
    Format(String),
    #[error("between 1 and {most} bytes can be shown at once")]
    TooMuch { most: u64 },
    #[error("{0:?} is no condition: cr3=ADDR, cpl=0 to cpl=3, vcpu=N or hits=COUNT")]
    Condition(String),
    #[error("there are {most} conditions already; take some off")]
    TooManyConditions { most: usize },
    #[error("{0:?} is neither a number nor a known name of an MSR; \"monitor msr\" lists these")]
    NoMsr(String),
    #[error("a device is read 1, 2, 4 or 8 bytes at a time, not {0}")]
    Width(u64),
    #[error("no device {found:?}; there are: {names}")]
    NoDevice { found: String, names: String },
    #[error("{device} has no queue {number}, but {count} from 0 on")]
    NoQueue {
        device: String,
        number: u64,
        count: usize,
    },
    #[error("{0:?} cannot be trapped; mmio, pio, kick and msr can")]
    NoTrap(String),
    #[error("there are {most} traps already; \"monitor trap off\" takes all away")]
    TooManyTraps { most: usize },
    #[error("{first:#x} to {last:#x} is no range up to {most:#x}")]
    Range { first: u64, last: u64, most: u64 },
    #[error(
        "{first:#x} to {last:#x} has RAM in it, where accesses do not stop the guest; \
         gdb's watch can, on a virtual address"
    )]
    TrapInRam { first: u64, last: u64 },
    #[error("{0:?} is no architecture: auto, i8086, i386 or x86-64")]
    NoArchitecture(String),
    #[error("{0:?} is neither on nor off")]
    OnOff(String),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the output is too long")]
    Output(#[from] fmt::Error),
}

impl MonitorError {
    /// Whether the words were wrong, rather than their execution.
    pub fn is_usage(&self) -> bool {
        !matches!(
            self,
            Self::Unknown { .. }
                | Self::Running
                | Self::Linux(_)
                | Self::Target(_)
                | Self::Output(_)
        )
    }
}
