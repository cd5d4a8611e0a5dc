//! `outboard doctor`: the findings in words.

use std::io::{self, Write};

use kvm_ioctls::{Cap, Kvm};

use super::kind::kvm_modules;
use super::probe::Ring;
use super::{Finding, Findings, tsc_follows_its_offset};
use crate::kvm_device;
use crate::vcpu::debug_events::control::Int3Delivery;

/// Writes the report: the finding for each facility, and at the end what gdb
/// can therefore do.
///
/// # Errors
/// /dev/kvm cannot be opened, or `out` refuses.
pub fn print(out: &mut dyn Write) -> io::Result<()> {
    let kvm = kvm_device::open().map_err(io::Error::other)?;
    writeln!(out, "Host: {}", kind())?;
    writeln!(out, "KVM API version {}", kvm.get_api_version())?;
    capabilities(&kvm, out)?;
    let (ring0, ring3) = (Findings::of(Ring::Kernel), Findings::of(Ring::User));
    writeln!(
        out,
        "\nGuest debugging          ring 0                ring 3"
    )?;
    for (name, facility) in FACILITIES {
        writeln!(
            out,
            "  {name:<22} {:<21} {}",
            word(facility(&ring0)),
            word(facility(&ring3))
        )?;
    }
    let [ring0_tsc, ring3_tsc] = [Ring::Kernel, Ring::User].map(tsc_while_stopped);
    writeln!(
        out,
        "  {:<22} {ring0_tsc:<21} {ring3_tsc}",
        "TSC while stopped"
    )?;
    writeln!(
        out,
        "  the guest's own int3   {}",
        match super::int3_delivery() {
            Int3Delivery::Inject => "delivered by KVM_GUESTDBG_INJECT_BP",
            Int3Delivery::Events => "delivered by KVM_SET_VCPU_EVENTS",
            Int3Delivery::Wrong => "comes with a wrong RIP while breakpoints are planted",
        }
    )?;
    writeln!(out, "\nWhat gdb can do")?;
    for line in advice(&ring0, &ring3) {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

type Facility = fn(&Findings) -> &Finding;

const FACILITIES: [(&str, Facility); 4] = [
    ("single-step", |f| &f.step),
    ("int3", |f| &f.int3),
    ("hardware breakpoint", |f| &f.hw_breakpoint),
    ("write watchpoint", |f| &f.watchpoint),
];

fn word(finding: &Finding) -> String {
    match finding {
        Finding::Traps => "traps".into(),
        Finding::FailsToEmulate => "fails to emulate".into(),
        Finding::Missed => "not trapped".into(),
        Finding::Failed(error) => format!("failed: {error}"),
    }
}

fn tsc_while_stopped(ring: Ring) -> String {
    match tsc_follows_its_offset(ring) {
        Ok(true) => "stands still".into(),
        Ok(false) => "keeps counting".into(),
        Err(error) => format!("failed: {error}: {}", error.source),
    }
}

fn kind() -> String {
    let modules = kvm_modules();
    if modules.is_empty() {
        "KVM, built in or of an unknown kind".into()
    } else {
        modules.join(", ")
    }
}

fn capabilities(kvm: &Kvm, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "vCPUs: {} recommended, {} at most",
        kvm.get_nr_vcpus(),
        kvm.get_max_vcpus()
    )?;
    writeln!(out, "memory slots: {}", kvm.get_nr_memslots())?;
    let capabilities = [
        ("in-kernel interrupt controller", Cap::Irqchip),
        ("ioeventfd", Cap::Ioeventfd),
        ("irqfd", Cap::Irqfd),
        ("read-only memory slots", Cap::ReadonlyMem),
        ("immediate exit", Cap::ImmediateExit),
        ("guest debugging", Cap::SetGuestDebug),
    ];
    for (name, capability) in capabilities {
        let answer = if kvm.check_extension(capability) {
            "yes"
        } else {
            "no"
        };
        writeln!(out, "{name}: {answer}")?;
    }
    Ok(())
}

fn advice(ring0: &Findings, ring3: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    for (ring, findings) in [("kernel code", ring0), ("user code", ring3)] {
        let software = match findings.int3 {
            Finding::Traps => "unlimited breakpoints (int3)",
            Finding::FailsToEmulate => {
                "unlimited breakpoints (int3, recognised by KVM's failure to emulate it)"
            }
            _ if findings.hw_breakpoint == Finding::Traps => {
                "up to 4 breakpoints (hardware slots; int3 goes to the guest)"
            }
            _ => "no breakpoints",
        };
        let step = if findings.step == Finding::Traps {
            "single-step"
        } else {
            "no single-step"
        };
        let watch = match (&findings.watchpoint, &findings.step) {
            (Finding::Traps, _) => "watchpoints",
            // The page is opened for the write alone.
            (_, Finding::Traps) => "watchpoints on writes (write-protected pages)",
            _ => "no watchpoints",
        };
        lines.push(format!("{ring}: {software}; {step}; {watch}"));
    }
    lines.extend(advice_on_shared_code(ring0, ring3));
    lines
}

/// An int3 must not be planted where it may be run in a ring in which it does
/// not trap.
fn advice_on_shared_code(ring0: &Findings, ring3: &Findings) -> Option<String> {
    let trapped = |ring: &Findings| matches!(ring.int3, Finding::Traps | Finding::FailsToEmulate);
    let (only, other) = match (trapped(ring0), trapped(ring3)) {
        (true, false) => ("kernel", ring3),
        (false, true) => ("user", ring0),
        _ => return None,
    };
    let hit = if other.hw_breakpoint == Finding::Traps {
        "either".to_owned()
    } else {
        format!("{only} code only")
    };
    Some(format!(
        "code on pages that both may execute: up to 4 breakpoints (hardware slots), hit by {hit}"
    ))
}
