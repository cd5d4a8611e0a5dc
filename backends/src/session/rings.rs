//! The requests about one ring, and starting and stopping it.
//!
//! A ring runs as soon as it has size, addresses, kick descriptor, memory and permission, in
//! whatever order they came. A change to a running ring stops it, is made, and starts it again
//! where it was: the driver does not notice, and no case needs a rule of its own.

use std::fs::File;

use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringState};
use vhost_user_backend::{VhostUserBackend, VringT};
use vhost_user_wire::Message;
use vhost_user_wire::payload::VringFile;
use vm_memory::mmap::NewBitmap;

use super::error::RequestError;
use super::{Answer, Ring, Session};
use crate::fd;
use crate::vring::{Flow, RingAddresses, RingError, RingSetup};

impl<T> Session<'_, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    pub(super) fn set_vring_num(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, RequestError> {
        let max = self.device.max_queue_size();
        let packed = self.is_packed();
        self.change(state.index, |setup| setup.set_size(state.num, max, packed))
    }

    pub(super) fn set_vring_addr(
        &mut self,
        message: VhostUserVringAddr,
    ) -> Result<Answer, RequestError> {
        self.change(message.index, |setup| {
            setup.set_addresses(RingAddresses::from_message(&message)?);
            Ok(())
        })
    }

    pub(super) fn set_vring_base(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, RequestError> {
        let packed = self.is_packed();
        self.change(state.index, |setup| setup.set_base(state.num, packed))
    }

    /// A ring is started before it is enabled. Chains that the driver has added by then are not
    /// lost in between: only a ring that has run discards its chains when it is disabled.
    pub(super) fn set_vring_enable(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, RequestError> {
        let index = self.ring_index(state.index)?;
        let discards = self.rings[index].running && self.device.discards(index);
        let flow = match state.num {
            0 if discards => Flow::Discarded,
            0 => Flow::Held,
            _ => Flow::Passed,
        };
        self.change(state.index, |setup| {
            setup.flow = flow;
            Ok(())
        })
    }

    /// Stops the ring and says where it stands. It needs a new kick descriptor to run again.
    pub(super) fn get_vring_base(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, RequestError> {
        let index = self.ring_index(state.index)?;
        let ran = self.rings[index].running;
        self.stop(index)?;
        self.device.vring(index).set_call(None);
        let setup = &mut self.rings[index].setup;
        if ran {
            setup.stop();
        }
        setup.kick = None;
        if setup.flow == Flow::Discarded {
            setup.flow = Flow::Held;
        }
        let reply = VhostUserVringState::new(state.index, setup.base);
        Ok(Answer::payload(&reply))
    }

    pub(super) fn set_vring_kick(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let (index, kick) = self.ring_fd(request)?;
        let Some(kick) = kick else {
            self.stop(index)?;
            self.rings[index].setup.kick = None;
            return Err(RequestError::PollingMode(index));
        };
        self.change(index as u32, |setup| {
            setup.kick = Some(kick);
            Ok(())
        })
    }

    /// The call descriptor may change while the ring runs: frontends do that to mask interrupts.
    pub(super) fn set_vring_call(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let (index, call) = self.ring_fd(request)?;
        let vring = self.device.vring(index);
        vring.set_call(call);
        if self.rings[index].running {
            // A completion may have been signalled to the old descriptor after its last reader
            // looked. One interrupt too many is harmless, one too few is a hang.
            let signalled = vring.get_ref().signal_used_queue();
            signalled.map_err(|source| RequestError::RingFd { index, source })?;
        }
        Ok(Answer::Done)
    }

    pub(super) fn set_vring_err(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let (index, err) = self.ring_fd(request)?;
        self.device.pool.set_err(index, err)?;
        Ok(Answer::Done)
    }

    /// Changes a ring's setup between stopping it and starting it again.
    fn change(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut RingSetup) -> Result<(), RingError>,
    ) -> Result<Answer, RequestError> {
        let index = self.ring_index(index)?;
        self.stop(index)?;
        let changed = change(&mut self.rings[index].setup)
            .map_err(|source| RequestError::Ring { index, source });
        // A refused change leaves the setup as it was, and the ring running if it ran.
        self.start_if_ready(index)?;
        changed.map(|()| Answer::Done)
    }

    /// Starts a ring that has everything it needs and does not run yet.
    pub(super) fn start_if_ready(&mut self, index: usize) -> Result<(), RequestError> {
        let (packed, event_idx) = (self.is_packed(), self.event_idx());
        let Ring { setup, running } = &self.rings[index];
        if *running || setup.missing(&self.memory).is_some() {
            return Ok(());
        }
        // Its used ring may have a place of its own in the log by now.
        self.apply_log(&self.memory)?;
        let Ring { setup, running } = &mut self.rings[index];
        let ready = setup
            .ready(&self.memory, packed)
            .map_err(|source| RequestError::Ring { index, source })?;
        let Some(ready) = ready else {
            return Ok(());
        };
        self.device
            .configure(index, &ready, event_idx, self.inflight.as_ref())
            .map_err(|source| RequestError::Start { index, source })?;
        let fd_error = |source| RequestError::RingFd { index, source };
        let kick = ready.kick.try_clone().map_err(fd_error)?;
        self.device.pool.start(index, kick)?.map_err(fd_error)?;
        tracing::debug!(
            ring = index,
            size = ready.size,
            base = ready.base,
            enabled = ready.enabled,
            "ring started"
        );
        *running = true;
        setup.start();
        if self.inflight.is_some() {
            // The backend that had the ring before may have died between using a chain and
            // signalling it.
            let signalled = self.device.vring(index).get_ref().signal_used_queue();
            signalled.map_err(fd_error)?;
        }
        Ok(())
    }

    /// Stops a ring if it runs, and remembers where it stands.
    pub(super) fn stop(&mut self, index: usize) -> Result<(), RequestError> {
        self.stop_rings(&[index])
    }

    /// Stops all rings that run.
    pub(super) fn stop_all(&mut self) -> Result<(), RequestError> {
        let all: Vec<usize> = (0..self.rings.len()).collect();
        self.stop_rings(&all)
    }

    /// The first error is the result. A ring that has one is stopped all the same.
    fn stop_rings(&mut self, rings: &[usize]) -> Result<(), RequestError> {
        let running = rings.iter().copied().filter(|i| self.rings[*i].running);
        let running: Vec<usize> = running.collect();
        let bases = self.device.stop(&running)?;
        let mut result = Ok(());
        for (index, base) in running.into_iter().zip(bases) {
            let Ring { setup, running } = &mut self.rings[index];
            *running = false;
            match base {
                Ok(base) => setup.base = base,
                Err(error) => result = result.and(Err(RequestError::Backend(error))),
            }
            tracing::debug!(ring = index, base = setup.base, "ring stopped");
        }
        result
    }

    /// RESET_OWNER: deprecated, and to be taken as disabling all rings.
    pub(super) fn disable_rings(&mut self) -> Result<Answer, RequestError> {
        for ring in &mut self.rings {
            ring.setup.flow = Flow::Held;
        }
        self.stop_all()?;
        Ok(Answer::Done)
    }

    /// Stops all rings and drops everything known about them.
    pub(super) fn forget_rings(&mut self) -> Result<(), RequestError> {
        let stopped = self.stop_all();
        if let Err(RequestError::Worker(_)) = stopped {
            return stopped;
        }
        let forgotten = self.every_ring(|session, index| {
            session.rings[index] = Ring::default();
            session.device.vring(index).set_call(None);
            Ok(session.device.pool.set_err(index, None)?)
        });
        forgotten.and(stopped)
    }

    /// Does something to every ring, also to those after one that it fails for. The first error
    /// is the result, unless a later one says that a worker is lost.
    pub(super) fn every_ring(
        &mut self,
        mut action: impl FnMut(&mut Self, usize) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let mut result = Ok(());
        for index in 0..self.rings.len() {
            match action(self, index) {
                Err(lost @ RequestError::Worker(_)) => return Err(lost),
                Err(error) if result.is_ok() => result = Err(error),
                _ => (),
            }
        }
        result
    }

    fn ring_index(&self, index: u32) -> Result<usize, RequestError> {
        let count = self.rings.len();
        usize::try_from(index)
            .ok()
            .filter(|&i| i < count)
            .ok_or(RequestError::NoSuchRing { index, count })
    }

    /// The payload of SET_VRING_KICK, _CALL and _ERR.
    fn ring_fd(&self, request: &mut Message) -> Result<(usize, Option<File>), RequestError> {
        let VringFile { index, has_file } = request.body()?;
        let index = self.ring_index(index.into())?;
        if !has_file {
            request.take_files(0)?;
            return Ok((index, None));
        }
        let file = request.take_file()?;
        fd::never_block_on_stream(&file)
            .map_err(|source| RequestError::RingFd { index, source })?;
        Ok((index, Some(file)))
    }
}
