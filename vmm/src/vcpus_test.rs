use std::os::fd::AsFd;
use std::sync::mpsc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::events::{Inbox, channel};
use crate::power::PowerSwitch;
use crate::vcpu::cpuid::CpuModel;
use crate::vcpu::dispatch::Buses;
use crate::vcpu::watched::WatchedRam;
use crate::vcpu::{Failure, Vcpu, VcpuContext};
use crate::{kvm_device, memory};

const CPUS: u8 = 2;
/// Of the vCPUs' handles.
const PATIENCE: Duration = Duration::from_millis(200);
const DEADLINE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// vCPUs without a program: one that is let go ends in a failure at once.
struct Machine {
    vcpus: Vcpus,
    failures: Inbox<(usize, Failure)>,
}

impl Machine {
    /// None where there is no KVM.
    fn new() -> Option<Self> {
        vcpu::init().unwrap();
        let kvm = kvm_device::open().ok()?;
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let vm = Arc::new(Vm::new(&kvm, memory.clone()).unwrap());
        // A stop holds its clock.
        vm.add_pit().unwrap();
        let (debug, _) = channel().unwrap();
        let (failures, inbox) = channel().unwrap();
        let (power, _) = channel().unwrap();
        let context = VcpuContext {
            debug,
            failures,
            power: Arc::new(PowerSwitch::new(power)),
            buses: Arc::new(Buses::default()),
            traps: Arc::default(),
            watched: Arc::new(WatchedRam::new(vm.clone())),
            vm: vm.clone(),
            memory,
        };
        let model = CpuModel::of_host(&kvm).unwrap();
        let spawn = |index: u8| {
            let cpuid = model.for_vcpu(index, 1);
            let vcpu = Vcpu::new(&kvm, vm.create_vcpu(index).unwrap(), &cpuid).unwrap();
            // As the first, which needs no other to start it.
            vcpu.fd().set_mp_state(Default::default()).unwrap();
            Handle::spawn(index.into(), vcpu, context.clone(), PATIENCE).unwrap()
        };
        let handles = (0..CPUS).map(spawn).collect();
        Some(Self {
            vcpus: Vcpus::new(vm.clone(), handles),
            failures: inbox,
        })
    }

    /// Keeps a vCPU in something that takes long, until the result is dropped.
    fn keep_busy(&self, vcpu: usize) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let busy = self.vcpus.handles()[vcpu].request(move |_| released.recv());
        assert!(matches!(busy, Err(vcpu::Error::NoAnswer { .. })));
        release
    }

    /// Waits until each of these has run.
    fn expect_runs(&self, mut vcpus: Vec<usize>) {
        while !vcpus.is_empty() {
            let mut fds = [PollFd::from_borrowed_fd(
                self.failures.as_fd(),
                PollFlags::IN,
            )];
            assert_eq!(
                poll(&mut fds, Some(&DEADLINE)),
                Ok(1),
                "{vcpus:?} do not run"
            );
            if let Some((vcpu, _)) = self.failures.take() {
                vcpus.retain(|left| *left != vcpu);
            }
        }
    }
}

fn is_late(result: Result<(), Error>, late: usize) -> bool {
    matches!(result, Err(Error::Vcpu(vcpu::Error::NoAnswer { vcpu, .. })) if vcpu == late)
}

#[test]
fn a_pause_that_a_busy_vcpu_is_late_for_counts_and_can_be_undone() {
    let Some(machine) = Machine::new() else {
        return;
    };
    for busy in 0..usize::from(CPUS) {
        machine.vcpus.group().resume_all().unwrap();
        machine.expect_runs(vec![0, 1]);
        let release = machine.keep_busy(busy);
        let mut group = machine.vcpus.group();
        assert!(is_late(group.pause(), busy));
        assert!(group.is_stopped());
        group.resume_all().unwrap();
        assert!(!group.is_stopped());
        machine.expect_runs(vec![1 - busy]);
        drop(release);
        machine.expect_runs(vec![busy]);
        group.pause().unwrap();
    }
}

#[test]
fn a_pause_that_has_to_be_whole_leaves_all_running_or_stopped_as_they_were() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut group = machine.vcpus.group();
    let release = machine.keep_busy(1);
    assert!(is_late(group.try_pause(), 1));
    assert!(group.is_stopped(), "as before");
    group.resume_all().unwrap();
    machine.expect_runs(vec![0]);
    assert!(is_late(group.try_pause(), 1));
    assert!(!group.is_stopped());
    machine.expect_runs(vec![0]);
    drop(release);
    machine.expect_runs(vec![1]);
    group.try_pause().unwrap();
    assert!(group.is_stopped());
}

#[test]
fn who_looks_while_another_stops_or_resumes_does_not_wait_for_long() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let group = machine.vcpus.group();
    assert!(machine.vcpus.group_within(Duration::ZERO).is_none());
    drop(group);
    assert!(machine.vcpus.group_within(Duration::ZERO).is_some());
}
