//! A device written for the stock daemon of the rust-vmm crates, in the way they are usually
//! written: the `Mut` trait behind a lock, `VringMutex`, the default thread mask, an event handler
//! that returns errors for events it does not know.

mod common;

use std::io;
use std::sync::{Arc, RwLock};

use common::{BUFFERS, Driver, Server, w};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VringMutex, VringT};
use virtio_queue::QueueOwnedT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

/// Fills every buffer with the number of buffers it has filled.
struct Counter {
    count: u8,
    event_idx: bool,
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
}

impl VhostUserBackendMut for Counter {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        64
    }

    fn features(&self) -> u64 {
        1 << 32 | 1 << 30 | 1 << 29
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        set: EventSet,
        vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        if set != EventSet::IN {
            return Err(io::Error::other("not readable"));
        }
        let vring = vrings
            .get(usize::from(event))
            .ok_or_else(|| io::Error::other("unknown event"))?;
        let memory = self.memory.as_ref().unwrap().memory();
        loop {
            vring.disable_notification().unwrap();
            let chains: Vec<_> = vring
                .get_mut()
                .get_queue_mut()
                .iter(memory.clone())
                .map_err(io::Error::other)?
                .collect();
            for chain in chains {
                let head = chain.head_index();
                let buffer = chain.writable().next().unwrap();
                self.count += 1;
                memory.write_obj(self.count, buffer.addr()).unwrap();
                vring.add_used(head, 1).unwrap();
            }
            if vring.needs_notification().unwrap() {
                vring.signal_used_queue()?;
            }
            if !vring.enable_notification().unwrap() {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_device_for_the_stock_daemon_is_served_again_and_again() {
    let counter = Arc::new(RwLock::new(Counter {
        count: 0,
        event_idx: false,
        memory: None,
    }));
    let server = Server::start(tempfile::tempdir().unwrap(), Arc::clone(&counter), |_| ());
    let mut expected = 0u8;
    for session in 0..4 {
        let without = if session % 2 == 0 { 0 } else { 1 << 29 };
        let mut driver = Driver::connect(&server.socket(), 2, without);
        assert_eq!(driver.frontend.get_queue_num().unwrap(), 2);
        assert_eq!(counter.read().unwrap().event_idx, without == 0);
        driver.start();
        for i in 0..20 {
            expected += 1;
            assert_eq!(driver.run(i % 2, &[w(BUFFERS, 1)]), 1);
            let got: u8 = driver.memory.read_obj(GuestAddress(BUFFERS)).unwrap();
            assert_eq!(got, expected);
        }
        assert_eq!(driver.frontend.get_vring_base(1).unwrap(), 10);
    }
}
