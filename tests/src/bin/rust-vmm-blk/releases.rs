//! The same backend on several releases of the crate, each with the releases of the other
//! crates that go with it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, Memory, Segment};

const QUEUES: usize = 4;
const QUEUE_SIZE: usize = 256;
/// VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES, EVENT_IDX, MQ, FLUSH.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 12 | 1 << 9;

/// Serves a disk on a socket, for one connection.
pub type Serve = fn(Disk, &Path) -> anyhow::Result<()>;

pub fn find(release: &str) -> Option<Serve> {
    match release {
        "0.10" => Some(v0_10::serve),
        "0.17" => Some(v0_17::serve),
        "0.20" => Some(v0_20::serve),
        "0.24" => Some(v0_24::serve),
        _ => None,
    }
}

macro_rules! release {
    (
        $module:ident: $backend:ident, $vhost:ident, $memory:ident, $queue:ident, $sys:ident,
        [$($of:tt)*] { $($types:tt)* } -> $handled_type:ty = $handled:expr,
        daemon[$($daemon:tt)*], listener[$($listener:tt)*]
    ) => {
        mod $module {
            use $backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
            use $memory::{
                Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap,
            };
            use $queue::QueueT;
            use $vhost::vhost_user::Listener;
            use $vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

            use super::*;

            type Ram = GuestMemoryAtomic<GuestMemoryMmap>;

            struct Backend {
                disk: Disk,
                memory: Ram,
                event_idx: AtomicBool,
            }

            struct Guest<'a>(&'a GuestMemoryMmap);

            impl Memory for Guest<'_> {
                fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
                    let read = self.0.read_slice(bytes, GuestAddress(address));
                    read.map_err(io::Error::other)
                }

                fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
                    let written = self.0.write_slice(bytes, GuestAddress(address));
                    written.map_err(io::Error::other)
                }
            }

            impl Backend {
                /// Whether there was something.
                fn process(&self, vring: &VringRwLock) -> io::Result<bool> {
                    let mut vring = vring.get_mut();
                    let mut found = false;
                    loop {
                        let memory = self.memory.memory();
                        let chain = vring.get_queue_mut().pop_descriptor_chain(memory.clone());
                        let Some(chain) = chain else {
                            return Ok(found);
                        };
                        let head = chain.head_index();
                        let segments = chain.map(|descriptor| Segment {
                            address: descriptor.addr().0,
                            len: descriptor.len(),
                            writable: descriptor.is_write_only(),
                        });
                        let segments: Vec<_> = segments.collect();
                        let written = self.disk.serve(&Guest(&memory), &segments)?;
                        vring.add_used(head, written).map_err(io::Error::other)?;
                        let is_wanted = !self.event_idx.load(Ordering::Relaxed)
                            || vring.needs_notification().map_err(io::Error::other)?;
                        if is_wanted {
                            vring.signal_used_queue()?;
                        }
                        found = true;
                    }
                }
            }

            impl VhostUserBackend $($of)* for Backend {
                $($types)*

                fn num_queues(&self) -> usize {
                    QUEUES
                }

                fn max_queue_size(&self) -> usize {
                    QUEUE_SIZE
                }

                fn features(&self) -> u64 {
                    FEATURES
                }

                fn protocol_features(&self) -> Protocol {
                    Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK
                }

                fn set_event_idx(&self, enabled: bool) {
                    self.event_idx.store(enabled, Ordering::Relaxed);
                }

                fn get_config(&self, _offset: u32, _size: u32) -> Vec<u8> {
                    self.disk.config(QUEUES as u16)
                }

                fn update_memory(&self, _memory: Ram) -> io::Result<()> {
                    Ok(())
                }

                fn queues_per_thread(&self) -> Vec<u64> {
                    (0..QUEUES).map(|queue| 1 << queue).collect()
                }

                fn handle_event(
                    &self,
                    device_event: u16,
                    _events: $sys::epoll::EventSet,
                    vrings: &[VringRwLock],
                    _thread: usize,
                ) -> io::Result<$handled_type> {
                    let vring = &vrings[usize::from(device_event)];
                    if !self.event_idx.load(Ordering::Relaxed) {
                        self.process(vring)?;
                        return Ok($handled);
                    }
                    loop {
                        vring.disable_notification().map_err(io::Error::other)?;
                        self.process(vring)?;
                        if !vring.enable_notification().map_err(io::Error::other)? {
                            return Ok($handled);
                        }
                    }
                }
            }

            pub fn serve(disk: Disk, socket: &Path) -> anyhow::Result<()> {
                let memory = Ram::new(GuestMemoryMmap::new());
                let backend = Arc::new(Backend {
                    disk,
                    memory: memory.clone(),
                    event_idx: AtomicBool::new(false),
                });
                let mut daemon: VhostUserDaemon<$($daemon)*> = VhostUserDaemon::new("blk".into(), backend, memory)
                    .map_err(|error| anyhow::anyhow!("{error:?}"))?;
                daemon
                    .start($($listener)* Listener::new(socket, true)?)
                    .and_then(|()| daemon.wait())
                    .map_err(|error| anyhow::anyhow!("{error:?}"))
            }
        }
    };
}

release!(v0_10: vhost_user_backend_0_10, vhost_0_8, vm_memory_0_12, virtio_queue_0_9, vmm_sys_util_0_11,
    [<VringRwLock>] {} -> bool = false,
    daemon[Arc<Backend>, VringRwLock], listener[]
);

release!(v0_17: vhost_user_backend_0_17, vhost_0_13, vm_memory_0_16, virtio_queue_0_14, vmm_sys_util_0_12,
    [] { type Bitmap = (); type Vring = VringRwLock; } -> () = (),
    daemon[Arc<Backend>], listener[]
);

release!(v0_20: vhost_user_backend_0_20, vhost_0_14, vm_memory_0_16, virtio_queue_0_16, vmm_sys_util_0_14,
    [] { type Bitmap = (); type Vring = VringRwLock; } -> () = (),
    daemon[Arc<Backend>], listener[]
);

release!(v0_24: vhost_user_backend_0_24, vhost_0_18, vm_memory_0_18, virtio_queue_0_18, vmm_sys_util_0_15,
    [] { type Bitmap = (); type Vring = VringRwLock; } -> () = (),
    daemon[Arc<Backend>], listener[&mut]
);
