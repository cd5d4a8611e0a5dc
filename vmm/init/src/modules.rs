//! Loads the drivers that the root needs.

use std::ffi::CStr;
use std::fs::File;
use std::path::Path;

use anyhow::Context;
use guest_init::job;
use rustix::io::Errno;
use rustix::system::finit_module;

const NO_PARAMETERS: &CStr = c"";
/// MODULE_INIT_COMPRESSED_FILE of `linux/module.h`.
const COMPRESSED: i32 = 4;

/// Loads `names` in their order.
pub fn load(names: &[String]) -> anyhow::Result<()> {
    for name in names {
        load_one(name).with_context(|| format!("cannot load the module {name}"))?;
    }
    Ok(())
}

fn load_one(name: &str) -> anyhow::Result<()> {
    let file = File::open(Path::new("/").join(job::MODULES).join(name))?;
    let flags = if name.ends_with(".ko") { 0 } else { COMPRESSED };
    match finit_module(&file, NO_PARAMETERS, flags) {
        Err(error) if error != Errno::EXIST => Err(error.into()),
        _ => Ok(()),
    }
}
