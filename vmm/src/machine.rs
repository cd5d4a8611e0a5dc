//! The only assembler: from a configuration to a machine that can run.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use devices::bus::{Bus, BusDevice, Overlap};
use devices::hypervisor::Hypervisor;
use devices::power::{I8042, Signal, SleepControl};
use devices::pvpanic::PvPanic;
use devices::rtc::Rtc;
use devices::serial::SerialPort;
use devices::vhost_user::shared_memory::SharedMemory;
use devices::vhost_user::{self, Frontend, Options};
use devices::virtio::page::PAGE_SIZE;
use devices::virtio::{GuestMemory, MmioTransport, mmio};
use kvm_ioctls::Kvm;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::backends::Backends;
use crate::boot::{self, VirtioSlot};
use crate::config::Config;
use crate::console;
use crate::debug::MachineHandles;
use crate::events::Notifier;
use crate::host;
use crate::kvm::{self, Chips, Vm};
use crate::kvm_device::{self, Unavailable};
use crate::layout;
use crate::machine_events::{MachineEvent, MachineEvents};
use crate::memory;
use crate::power::{PowerRequest, PowerSwitch};
use crate::shm_address_space::{self, ShmAddressSpace};
use crate::transports::{self, SharedTransport};
use crate::vcpu::cpuid::CpuModel;
use crate::vcpu::dispatch::Buses;
use crate::vcpu::traps::Traps;
use crate::vcpu::watched::WatchedRam;
use crate::vcpu::{self, Failure, Handle, Vcpu, VcpuContext};
use crate::vcpus::{self, Group, Vcpus};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    #[error(transparent)]
    Memory(#[from] memory::Error),
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
    #[error(transparent)]
    Vcpus(#[from] vcpus::Error),
    #[error("the guest cannot be stopped for it")]
    NotPaused(#[source] vcpus::Error),
    #[error(transparent)]
    Backend(#[from] vhost_user::Error),
    #[error(transparent)]
    Transport(#[from] mmio::Error),
    #[error(transparent)]
    Overlap(#[from] Overlap),
    #[error(transparent)]
    SharedMemory(#[from] shm_address_space::Error),
    #[error("cannot make an eventfd")]
    EventFd(#[source] io::Error),
    #[error("{asked} vCPUs were asked for; this host's KVM gives a machine at most {limit}")]
    TooManyCpus { asked: u8, limit: usize },
    #[error(
        "{asked} bytes of RAM reach up to {end:#x}; this host's KVM gives a guest {bits} bits of \
         physical addresses, up to {:#x}; give less with --memory", 1u64 << bits
    )]
    TooMuchMemory { asked: u64, end: u64, bits: u32 },
}

/// Where a machine reports.
pub struct Notifiers {
    pub debug: Notifier<gdb::target::Event>,
    pub failures: Notifier<(usize, Failure)>,
    pub power: Notifier<PowerRequest>,
    pub events: Arc<MachineEvents>,
}

/// An assembled machine. Its vCPUs are paused until [`Machine::start`].
pub struct Machine {
    boot: Arc<boot::Source>,
    vm: Arc<Vm>,
    vcpus: Arc<Vcpus>,
    power: Arc<PowerSwitch>,
    buses: Arc<Buses>,
    traps: Arc<Traps>,
    watched: Arc<WatchedRam>,
    transports: Vec<SharedTransport>,
    serial: Arc<Mutex<SerialPort>>,
    /// Readable when the guest has read all serial input.
    serial_room: EventFd,
    /// State of the shared chips at power-on.
    chips: Chips,
}

/// Panics without consequences are told of once in this time.
const PANIC_PERIOD: Duration = Duration::from_secs(1);

/// How long a reset waits for vCPUs beyond their own patience: as long as a backend may
/// take for the requests of a device that a vCPU resets.
const RESET_PATIENCE: Duration = Options::DRAIN_DEADLINE;

impl Machine {
    pub fn new(
        config: &Config,
        boot: Arc<boot::Source>,
        serial_output: console::Output,
        notifiers: Notifiers,
        backends: &Backends,
    ) -> Result<Self, Error> {
        let kvm = kvm_device::open()?;
        let limit = kvm.get_max_vcpus();
        if usize::from(config.cpus) > limit {
            return Err(Error::TooManyCpus {
                asked: config.cpus,
                limit,
            });
        }
        let model = cpu_model(&kvm)?;
        check_memory(config.memory, model.physical_bits())?;
        let memory = memory::allocate(config.memory)?;
        // The user's possible mistakes first, before anything is started.
        let (entry, vm) = load_beside(&boot, &kvm, &memory)?;
        let power = Arc::new(PowerSwitch::new(notifiers.power));
        let mut buses = Buses::default();
        let (serial, serial_room) = add_serial(&mut buses.pio, &vm, serial_output)?;
        let on_panic = match config.on_panic {
            Some(_) => signal(&power, PowerRequest::Panic),
            None => note_panic(notifiers.events.clone()),
        };
        add_legacy(&mut buses.pio, &power, on_panic)?;
        let mut shm_space = ShmAddressSpace::new(&memory, model.physical_bits());
        let transports = add_virtio(
            &mut buses.mmio,
            config,
            &boot.config().devices,
            &vm,
            backends,
            &mut shm_space,
        )?;
        transports::tell(&transports, &notifiers.events);
        let context = VcpuContext {
            debug: notifiers.debug,
            failures: notifiers.failures,
            power: power.clone(),
            buses: Arc::new(buses),
            traps: Arc::default(),
            watched: Arc::new(WatchedRam::new(vm.clone())),
            vm: vm.clone(),
            memory: memory.clone(),
        };
        let (traps, watched) = (context.traps.clone(), context.watched.clone());
        let buses = context.buses.clone();
        let chips = vm.chips()?;
        let handles = spawn_vcpus(&kvm, &model, &vm, config, entry, &context)?;
        let vcpus = Arc::new(Vcpus::new(vm.clone(), handles));
        Ok(Self {
            boot,
            vm,
            vcpus,
            power,
            buses,
            traps,
            watched,
            transports,
            serial,
            serial_room,
            chips,
        })
    }

    pub fn vcpus(&self) -> &Arc<Vcpus> {
        &self.vcpus
    }

    pub fn boot(&self) -> &Arc<boot::Source> {
        &self.boot
    }

    pub fn power(&self) -> &Arc<PowerSwitch> {
        &self.power
    }

    pub fn buses(&self) -> &Arc<Buses> {
        &self.buses
    }

    pub fn memory(&self) -> &Arc<GuestMemory> {
        self.vm.memory()
    }

    /// The parts of the machine that the debugger can show.
    pub fn handles(&self) -> MachineHandles {
        MachineHandles {
            vm: self.vm.clone(),
            buses: self.buses.clone(),
            traps: self.traps.clone(),
            watched: self.watched.clone(),
            transports: self.transports.clone(),
            power: self.power.clone(),
            boot: self.boot.clone(),
        }
    }

    pub fn transports(&self) -> &[SharedTransport] {
        &self.transports
    }

    /// The serial port. A vCPU in it does not stay long.
    pub fn serial(&self) -> MutexGuard<'_, SerialPort> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn serial_room(&self) -> &EventFd {
        &self.serial_room
    }

    /// Lets the vCPUs run.
    pub fn start(&self) -> Result<(), Error> {
        Ok(self.vcpus.group().resume_all()?)
    }

    /// Stops all vCPUs, those too that have stopped for a request. Nobody can resume them before
    /// the result is dropped.
    pub fn stop(&self) -> Result<Group<'_>, Error> {
        let mut group = self.vcpus.group();
        let paused = group.pause();
        // The request is met, and they may run again.
        self.power.on();
        paused.map_err(Error::NotPaused)?;
        Ok(group)
    }

    /// Back to power-on: devices, chips, vCPUs, and the kernel loaded again. The
    /// vCPUs are paused, and nobody can resume them before the result is dropped.
    /// Waits for backends.
    ///
    /// # Errors
    /// After [`Error::NotPaused`] the guest runs as before; after any other, it cannot.
    pub fn reset(&self) -> Result<Group<'_>, Error> {
        let mut group = self.vcpus.group();
        let was_stopped = group.is_stopped();
        if let Err(error) = group.pause_within(RESET_PATIENCE) {
            // Before any vCPU runs: it would stop for the old request.
            self.power.on();
            if !was_stopped {
                group.resume_as_before()?;
            }
            return Err(Error::NotPaused(error));
        }
        transports::reset_all(&self.transports);
        self.serial().reset();
        self.vm.set_chips(&self.chips)?;
        let entry = self.boot.load(self.memory())?;
        for (index, handle) in self.vcpus.handles().iter().enumerate() {
            handle.request(move |vcpu| reset_vcpu(vcpu, index, entry))??;
        }
        self.power.on();
        Ok(group)
    }
}

fn cpu_model(kvm: &Kvm) -> Result<CpuModel, Error> {
    let mut model = CpuModel::of_host(kvm)?;
    if model.has_invariant_tsc() && !host::holds_tsc() {
        model.withhold_invariant_tsc();
    }
    Ok(model)
}

/// Loads the kernel while another thread creates the VM: KVM waits in between until each of
/// the host's processors has been through its scheduler.
fn load_beside(
    boot: &boot::Source,
    kvm: &Kvm,
    memory: &Arc<GuestMemory>,
) -> Result<(boot::Entry, Arc<Vm>), Error> {
    thread::scope(|scope| {
        let create = || create_vm(kvm, memory);
        let thread = thread::Builder::new().name("create".into());
        let created = thread.spawn_scoped(scope, create);
        let entry = boot.load(memory)?;
        let vm = match created {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The host has no thread to spare.
            Err(_) => create(),
        };
        Ok((entry, vm?))
    })
}

fn create_vm(kvm: &Kvm, memory: &Arc<GuestMemory>) -> Result<Arc<Vm>, kvm::Error> {
    let vm = Vm::new(kvm, memory.clone())?;
    vm.add_pit()?;
    Ok(Arc::new(vm))
}

fn check_memory(asked: u64, bits: u32) -> Result<(), Error> {
    let end = memory::end(asked);
    if end > 1 << bits {
        return Err(Error::TooMuchMemory { asked, end, bits });
    }
    Ok(())
}

fn reset_vcpu(vcpu: &mut Vcpu, index: usize, entry: boot::Entry) -> Result<(), kvm::Error> {
    vcpu.reset()?;
    if index == 0 {
        boot::set_registers(vcpu, entry)
    } else {
        Ok(())
    }
}

/// The boot configuration of the machine of `config`.
pub fn boot_config(config: &Config) -> boot::Config {
    let slots = layout::VIRTIO_GSIS
        .iter()
        .enumerate()
        .map(|(number, &gsi)| VirtioSlot {
            addr: layout::VIRTIO_MMIO + number as u64 * layout::VIRTIO_MMIO_STRIDE,
            gsi,
        });
    boot::Config {
        kernel: config.kernel.clone(),
        initrd: config.initrd.clone(),
        cmdline: config.cmdline.clone(),
        cpus: config.cpus,
        devices: slots.take(config.devices.len()).collect(),
    }
}

fn event_fd() -> Result<EventFd, Error> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::EventFd)
}

fn add_serial(
    pio: &mut Bus,
    vm: &Vm,
    output: console::Output,
) -> Result<(Arc<Mutex<SerialPort>>, EventFd), Error> {
    let (interrupt, room) = (event_fd()?, event_fd()?);
    vm.add_irqfd(layout::COM1_GSI, &interrupt)
        .map_err(kvm::failed("KVM_IRQFD"))?;
    let told = room.try_clone().map_err(Error::EventFd)?;
    let port = SerialPort::new(interrupt, told, Box::new(output));
    let port = Arc::new(Mutex::new(port));
    pio.insert("COM1", layout::COM1, layout::COM1_LEN, port.clone())?;
    Ok((port, room))
}

fn signal(power: &Arc<PowerSwitch>, request: PowerRequest) -> Signal {
    let power = power.clone();
    Box::new(move || power.request(request))
}

fn add_legacy(pio: &mut Bus, power: &Arc<PowerSwitch>, panicked: Signal) -> Result<(), Error> {
    let i8042 = I8042::new(signal(power, PowerRequest::Reset));
    let sleep = SleepControl::new(boot::SLEEP_TYPE_OFF, signal(power, PowerRequest::Off));
    let devices: [(_, _, _, Arc<Mutex<dyn BusDevice>>); 4] = [
        (
            "RTC",
            layout::RTC,
            layout::RTC_LEN,
            Arc::new(Mutex::new(Rtc::default())),
        ),
        (
            "i8042",
            layout::I8042,
            layout::I8042_LEN,
            Arc::new(Mutex::new(i8042)),
        ),
        (
            "sleep control",
            layout::SLEEP_CONTROL,
            layout::SLEEP_CONTROL_LEN,
            Arc::new(Mutex::new(sleep)),
        ),
        (
            "pvpanic",
            layout::PVPANIC,
            layout::PVPANIC_LEN,
            Arc::new(Mutex::new(PvPanic::new(panicked))),
        ),
    ];
    for (name, base, len, device) in devices {
        pio.insert(name, base, len, device)?;
    }
    Ok(())
}

/// A panic that nothing is to follow. The guest may do this as often as it likes.
fn note_panic(events: Arc<MachineEvents>) -> Signal {
    static NOTED: Once = Once::new();
    let told: Mutex<Option<Instant>> = Mutex::default();
    Box::new(move || {
        NOTED.call_once(|| {
            tracing::warn!("the guest's kernel panics; --on-panic can stop or dump it");
        });
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() > PANIC_PERIOD) {
            *told = Some(Instant::now());
            events.tell(MachineEvent::GuestPanicked);
        }
    })
}

fn add_virtio(
    mmio: &mut Bus,
    config: &Config,
    slots: &[VirtioSlot],
    vm: &Arc<Vm>,
    backends: &Backends,
    shm_space: &mut ShmAddressSpace,
) -> Result<Vec<SharedTransport>, Error> {
    let mut transports: Vec<SharedTransport> = Vec::with_capacity(slots.len());
    for (device, slot) in config.devices.iter().zip(slots) {
        let (options, memory) = (&device.options, vm.memory());
        let connector = backends.connector(device)?;
        let mut frontend = Frontend::with(options.clone(), memory.clone(), connector)?;
        let regions = shm_space.place(&options.id, frontend.wanted_shared_memory())?;
        if !regions.is_empty() {
            let shared = SharedMemory::new(vm.clone(), regions).map_err(Error::EventFd)?;
            frontend.give_shared_memory(shared)?;
        }
        let base = GuestAddress(slot.addr);
        let id = options.id.clone();
        let (device, backend) = vhost_user::share(frontend);
        let transport = MmioTransport::new(
            id.clone(),
            device,
            memory.clone(),
            base,
            slot.gsi,
            vm.clone(),
        )?;
        let transport = SharedTransport::new(transport, backend);
        mmio.insert(id, slot.addr, PAGE_SIZE as u64, transport.device().clone())?;
        transports.push(transport);
    }
    Ok(transports)
}

fn spawn_vcpus(
    kvm: &Kvm,
    model: &CpuModel,
    vm: &Vm,
    config: &Config,
    entry: boot::Entry,
    context: &VcpuContext,
) -> Result<Vec<Handle>, Error> {
    let cpus = config.cpus;
    let deadlines = config.devices.iter().map(|device| device.options.deadline);
    let patience = deadlines.max().unwrap_or_default() + vcpu::ANSWER_DEADLINE;
    let mut handles = Vec::with_capacity(cpus.into());
    for index in 0..cpus {
        let cpuid = model.for_vcpu(index, cpus);
        let mut vcpu = Vcpu::new(kvm, vm.create_vcpu(index)?, &cpuid)?;
        if config.gdb.is_some() {
            vcpu.note_rip_at_exits(kvm);
        }
        vcpu.save_reset_state(kvm)?;
        if index == 0 {
            boot::set_registers(&vcpu, entry)?;
        }
        let handle = Handle::spawn(index.into(), vcpu, context.clone(), patience)?;
        handles.push(handle);
    }
    Ok(handles)
}
