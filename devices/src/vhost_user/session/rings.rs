//! The messages about single rings.

use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringState};
use vhost_user_wire::frontend::*;
use vmm_sys_util::eventfd::EventFd;

use super::channel::Channel;
use super::channel_error::ChannelError;
use super::ring_errors::RingErrors;
use crate::deadline::Deadline;

/// All that a backend has to know of one ring.
pub struct RingSetup {
    pub addresses: VhostUserVringAddr,
    /// In entries.
    pub size: u16,
    /// Where to begin: the available-ring entry to take first or, of a packed queue, both
    /// positions.
    pub base: u32,
    pub kick: EventFd,
    pub call: EventFd,
}

/// The rings of one backend.
pub struct Rings {
    /// Whether they are enabled one by one; otherwise they all are, always.
    by_enable: bool,
    /// Where the backend reports errors, if it can be told.
    errors: Option<RingErrors>,
}

impl Rings {
    pub fn new(by_enable: bool, errors: Option<RingErrors>) -> Self {
        Self { by_enable, errors }
    }

    /// Where the backend reports errors, if it can be told.
    pub fn errors(&self) -> Option<&RingErrors> {
        self.errors.as_ref()
    }

    /// Starts a ring, in the order of QEMU.
    pub fn start(
        &self,
        ring: &RingSetup,
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let index = ring.addresses.index;
        let state = |num| VhostUserVringState::new(index, num);
        channel.tell(&SetVringNum(state(ring.size.into())), deadline)?;
        channel.tell(&SetVringBase(state(ring.base)), deadline)?;
        channel.tell(&SetVringAddr(ring.addresses), deadline)?;
        // An index has eight bits: there are no more queues than that.
        let short = index as u8;
        channel.tell(&SetVringCall::new(short, &ring.call), deadline)?;
        let errors = self.errors.as_ref();
        if let Some(sign) = errors.and_then(|errors| errors.sign(short.into())) {
            match channel.tell(&SetVringErr::new(short, sign), deadline) {
                // The backend has no errors to report; all else works without.
                Err(error) if error.is_refusal() => {
                    tracing::debug!(index, %error, "errors on the queue will not show");
                }
                told => told?,
            }
        }
        channel.tell(&SetVringKick::new(short, &ring.kick), deadline)?;
        if self.by_enable {
            channel.tell(&SetVringEnable(state(1)), deadline)?;
        }
        channel.settle(deadline)
    }

    /// Stops a ring and returns the backend's answer: the ring that it stopped,
    /// and the position where it would have continued. `waits` is called now
    /// and then.
    pub fn stop(
        &self,
        index: u16,
        channel: &mut Channel,
        deadline: &Deadline,
        waits: impl FnMut(),
    ) -> Result<VhostUserVringState, ChannelError> {
        let state = VhostUserVringState::new(index.into(), 0);
        channel.ask_patiently(&GetVringBase(state), deadline, waits)
    }

    /// Disables a ring that is stopped, where rings are enabled one by one.
    ///
    /// It is stopped before it is disabled. A disabled ring that is not stopped is to be
    /// processed without side effects (vhost-user document, "Ring states"): a pause
    /// would lose packets and writes.
    pub fn disable(
        &self,
        index: u16,
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        if !self.by_enable {
            return Ok(());
        }
        let state = VhostUserVringState::new(index.into(), 0);
        match channel.tell(&SetVringEnable(state), deadline) {
            // It is stopped, and only that counts.
            Err(error) if !error.is_refusal() => Err(error),
            _ => Ok(()),
        }
    }
}
