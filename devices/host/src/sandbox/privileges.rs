//! What a process gives up for good.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};

/// Gives up all capabilities, and whatever a program that it executes could gain (no_new_privs),
/// and writes no core file, in which the guest's memory would be. Root without capabilities is
/// like any user to the files of others.
///
/// The calling thread and those that it starts lose them, not those that are there already.
pub fn give_up() -> io::Result<()> {
    set_no_new_privs(true)?;
    // Kernels before 4.3 have no such set.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, nothing)?;
    // As many descriptors as there may be now, and never more.
    let descriptors = getrlimit(Resource::Nofile).current;
    let descriptors = Rlimit {
        current: descriptors,
        maximum: descriptors,
    };
    Ok(setrlimit(Resource::Nofile, descriptors)?)
}
