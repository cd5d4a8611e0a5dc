//! The guest's files: the root below a layer in memory, the kernel's own file systems, and the
//! directories that are shared for writing.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use guest_init::job::{self, Job, Root};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

/// Where the guest leaves its answer, below the root.
pub const ANSWER_DIR: &str = "/run/outboard";
const LOWER: &str = "/lower";
const UPPER: &str = "/upper";
const ROOT: &str = "/root";
/// Whole, or with a partition.
const DISKS: [&str; 2] = ["/dev/vda", "/dev/vda1"];

/// Type, and where it is mounted. Kernels may lack any.
const KERNEL_MOUNTS: [(&str, &str); 10] = [
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tmpfs", "/dev/shm"),
    ("devpts", "/dev/pts"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    ("securityfs", "/sys/kernel/security"),
    ("configfs", "/sys/kernel/config"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
];

/// Nothing but the kernel has made directories so far.
pub fn mount_devices() -> anyhow::Result<()> {
    fs::create_dir_all("/dev")?;
    attach("dev", "/dev", "devtmpfs", MountFlags::empty(), "mode=755")?;
    Ok(())
}

/// Mounts all that `job` asks for, and makes it the root.
pub fn mount_root(job: &Job) -> anyhow::Result<()> {
    for dir in [LOWER, UPPER, ROOT] {
        fs::create_dir_all(dir)?;
    }
    mount_lower(job.root)?;
    mount_layer().context("cannot put a layer in memory over the root")?;
    become_root()?;
    mount_kernel_files().context("cannot mount the kernel's file systems")?;
    fs::create_dir_all(ANSWER_DIR)?;
    attach(
        job::ANSWER_TAG,
        ANSWER_DIR,
        "virtiofs",
        MountFlags::empty(),
        "",
    )
    .context("cannot mount the directory of answers")?;
    for (place, path) in job.writable.iter().enumerate() {
        share(&job::writable_tag(place), path)
            .with_context(|| format!("cannot mount {}", path.display()))?;
    }
    Ok(())
}

fn mount_lower(root: Root) -> anyhow::Result<()> {
    match root {
        Root::Directory => attach(job::ROOT_TAG, LOWER, "virtiofs", MountFlags::RDONLY, "")
            .context("cannot mount the host's files"),
        Root::Disk => mount_disk(),
    }
}

/// With any file system that the kernel knows, as mount(8) does without a type.
fn mount_disk() -> anyhow::Result<()> {
    let known = fs::read_to_string("/proc/filesystems").or_else(|_| filesystems())?;
    let known = known.lines().filter(|line| !line.starts_with("nodev"));
    let mut kinds: Vec<&str> = known.map(str::trim).collect();
    // It also mounts what its predecessors left, who complain of what it leaves.
    kinds.sort_by_key(|kind| *kind != "ext4");
    for disk in DISKS.into_iter().filter(|disk| Path::new(disk).exists()) {
        for kind in &kinds {
            if attach(disk, LOWER, kind, MountFlags::RDONLY, "").is_ok() {
                return Ok(());
            }
        }
    }
    anyhow::bail!(
        "no file system of the image can be mounted; the kernel knows {}",
        kinds.join(", ")
    )
}

/// /proc is mounted for this alone: the root gets its own.
fn filesystems() -> io::Result<String> {
    fs::create_dir_all("/proc")?;
    attach("proc", "/proc", "proc", MountFlags::empty(), "")?;
    fs::read_to_string("/proc/filesystems")
}

fn mount_layer() -> anyhow::Result<()> {
    attach("upper", UPPER, "tmpfs", MountFlags::empty(), "mode=755")?;
    let (upper, work) = (format!("{UPPER}/upper"), format!("{UPPER}/work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let options = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    attach("root", ROOT, "overlay", MountFlags::empty(), &options)?;
    Ok(())
}

fn become_root() -> anyhow::Result<()> {
    let dev = format!("{ROOT}/dev");
    fs::create_dir_all(&dev).with_context(|| format!("cannot make {dev}"))?;
    mount_move("/dev", &dev).context("cannot move /dev")?;
    chdir(ROOT)?;
    mount_move(".", "/").context("cannot move the root")?;
    chroot(".").context("cannot enter the root")?;
    chdir("/")?;
    Ok(())
}

fn mount_kernel_files() -> anyhow::Result<()> {
    for (kind, path) in [("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(path)?;
        attach(kind, path, kind, MountFlags::empty(), "")?;
    }
    for (kind, path) in KERNEL_MOUNTS {
        let is_memory = kind == "tmpfs" || kind == "devpts";
        if is_memory {
            fs::create_dir_all(path)?;
        }
        let options = options(path);
        match attach(kind, path, kind, MountFlags::empty(), options) {
            Err(error) if is_memory => return Err(error).context(path),
            _ => {}
        }
    }
    Ok(())
}

fn options(path: &str) -> &'static str {
    match path {
        "/tmp" | "/dev/shm" => "mode=1777",
        "/run" => "mode=755",
        "/dev/pts" => "mode=620,ptmxmode=666",
        _ => "",
    }
}

fn share(tag: &str, path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path)?;
    mount(tag, path, "virtiofs", MountFlags::empty(), None)?;
    Ok(())
}

fn attach(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(source, target, kind, flags, Some(options.as_c_str()))
}
