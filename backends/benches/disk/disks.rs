//! The programs that are compared.

use std::ffi::{OsStr, OsString};
use std::process::{Child, Command};

use super::backend::Backend;
use super::row::Row;

/// A process for each core that never sleeps.
pub struct Busy(Vec<Child>);

impl Busy {
    pub fn everywhere() -> Self {
        let cores = std::thread::available_parallelism().unwrap().get();
        let busy = |_| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "while :; do :; done"]).spawn().unwrap()
        };
        Busy((0..cores).map(busy).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The `outboard-blk` that was built.
pub fn program() -> &'static OsStr {
    env!("CARGO_BIN_EXE_outboard-blk").as_ref()
}

/// Another build of it that is to be compared.
pub fn other() -> Option<OsString> {
    std::env::var_os("OUTBOARD_BLK_OTHER")
}

/// `outboard-blk`, with more options.
pub fn ours(program: &OsStr, row: &Row, more: &[&str]) -> Backend {
    let mut options = vec![
        "--socket=socket".to_owned(),
        format!("--path={}", row.image.display()),
        format!("--queues={}", row.queues),
    ];
    if row.direct {
        options.push("--direct".to_owned());
    }
    options.extend(more.iter().map(|&option| option.to_owned()));
    Backend::start(program, &options)
}

/// QEMU's storage daemon.
pub fn qemu(row: &Row) -> Backend {
    let cache = if row.direct { "on" } else { "off" };
    let file = format!(
        "driver=file,node-name=file,filename={},aio=io_uring,cache.direct={cache}",
        row.image.display()
    );
    let export = format!(
        "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=socket,\
         writable=on,num-queues={}",
        row.queues
    );
    let options = [
        "--blockdev",
        &file,
        "--blockdev",
        "driver=raw,node-name=disk,file=file",
        "--export",
        &export,
    ];
    Backend::start("qemu-storage-daemon", &options.map(str::to_owned))
}
