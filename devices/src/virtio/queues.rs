//! The queues of a transport: their registers, and the event descriptors that outlive resets.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::counters::QueueInfo;
use super::kick::{Kick, event_fd};
use super::queue::{Format, QueueConfig, QueueError, QueueSetup};
use super::{Device, DeviceError, GuestMemory};
use crate::deadline::Deadline;
use crate::hypervisor::Hypervisor;

/// One queue.
pub struct Queue {
    index: u16,
    max_size: u16,
    setup: QueueSetup,
    ready: Option<QueueConfig>,
    running: bool,
    /// The guest's writes to QueueNotify.
    kick: Arc<Kick>,
    /// Raises the interrupt when signalled.
    call: EventFd,
}

impl Queue {
    /// Its notifications are writes of `index` at `notify`.
    pub fn new(
        hypervisor: &Arc<dyn Hypervisor>,
        notify: GuestAddress,
        index: u16,
        max_size: u16,
    ) -> io::Result<Self> {
        Ok(Self {
            index,
            max_size,
            setup: QueueSetup::default(),
            ready: None,
            running: false,
            kick: Arc::new(Kick::new(hypervisor.clone(), notify, index)?),
            call: event_fd()?,
        })
    }

    pub fn index(&self) -> u16 {
        self.index
    }

    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    pub fn kick(&self) -> &Kick {
        &self.kick
    }

    pub fn call(&self) -> &EventFd {
        &self.call
    }

    pub fn info(&self) -> QueueInfo {
        QueueInfo {
            max_size: self.max_size,
            ready: self.ready,
            running: self.running,
        }
    }

    /// The driver's registers, as long as the queue is not ready.
    pub fn setup(&mut self) -> Option<&mut QueueSetup> {
        match self.ready {
            None => Some(&mut self.setup),
            Some(_) => None,
        }
    }

    /// QueueReady = 1. A queue that cannot be is not ready, as the driver may see.
    pub fn make_ready(&mut self, format: Format, memory: &GuestMemory) -> Result<(), QueueError> {
        let checked = self.setup.check(format, self.max_size, memory);
        self.ready = checked.as_ref().ok().copied();
        checked.map(drop)
    }

    /// QueueReady = 0. It does not run.
    pub fn retire(&mut self) {
        self.ready = None;
    }

    /// As before the driver came. It does not run.
    pub fn reset(&mut self) {
        self.ready = None;
        self.setup = QueueSetup::default();
    }

    /// Has `device` work on it if it is ready.
    pub fn start(
        &mut self,
        device: &mut dyn Device,
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        let Some(config) = self.ready else {
            return Ok(());
        };
        device.start_queue(self.index, &config, &self.kick, &self.call, deadline)?;
        self.running = true;
        Ok(())
    }
}

/// All queues of a transport. The driver has selected one, which need not exist.
pub struct Queues {
    queues: Vec<Queue>,
    selected: u32,
}

impl Queues {
    pub fn new(queues: Vec<Queue>) -> Self {
        Self {
            queues,
            selected: 0,
        }
    }

    /// How many there are: as many as an index counts.
    pub fn count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// QueueSel.
    pub fn select(&mut self, index: u32) {
        self.selected = index;
    }

    pub fn selected(&self) -> Option<&Queue> {
        self.queues.get(self.selected as usize)
    }

    pub fn selected_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(self.selected as usize)
    }

    /// The queue that the driver calls `index`, if there is one.
    pub fn get(&self, index: u32) -> Option<&Queue> {
        self.queues.get(index as usize)
    }

    pub fn get_mut(&mut self, index: u16) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(index))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter()
    }

    pub fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.reset();
        }
    }

    /// Those in `range` that run. They count as stopped from here on.
    pub fn take_running(&mut self, range: Range<u16>) -> Vec<u16> {
        let there = self.queues.iter_mut();
        let running = there.filter(|queue| range.contains(&queue.index));
        let running = running.filter_map(|queue| {
            let was_running = std::mem::take(&mut queue.running);
            was_running.then_some(queue.index)
        });
        running.collect()
    }
}
