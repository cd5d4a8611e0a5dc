//! A backend program as another process, watched from outside.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vhost::vhost_user::VhostUserFrontend;

use super::{DEADLINE, connect_within};

/// Cases of each hostile test; `make soak` asks for more.
pub fn cases(default: u32) -> u32 {
    let asked = std::env::var("OUTBOARD_FUZZ_CASES");
    asked.map_or(default, |cases| cases.parse().unwrap())
}

/// A running backend program.
pub struct Backend {
    child: Child,
    pub dir: TempDir,
}

impl Backend {
    /// Starts `program` on a socket in a directory of its own, with a disk image of 1 MiB.
    pub fn start(program: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let child = Command::new(program)
            .current_dir(&dir)
            .args(["--socket", "socket"])
            .args(options)
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Backend { child, dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// A good frontend is served; the backend has so many queues.
    pub fn serves(&self, queues: u64) {
        let mut driver = connect_within(DEADLINE, &self.socket(), 1);
        driver.start();
        assert_eq!(driver.frontend.get_queue_num().unwrap(), queues);
    }

    /// Anonymous memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let mut lines = status.lines();
        let line = lines
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Descriptors when there is no frontend: as many as are seen ten times in a row.
    pub fn settled(&self) -> usize {
        let end = Instant::now() + DEADLINE;
        let (mut last, mut seen) = (self.descriptors(), 1);
        while seen < 10 {
            assert!(Instant::now() < end, "descriptors come and go");
            std::thread::sleep(Duration::from_millis(5));
            let now = self.descriptors();
            (last, seen) = if now == last {
                (last, seen + 1)
            } else {
                (now, 1)
            };
        }
        last
    }

    /// Waits until the program holds no more than `count` descriptors again.
    pub fn settles_at(&self, count: usize) {
        let end = Instant::now() + DEADLINE;
        while self.descriptors() > count {
            assert!(
                Instant::now() < end,
                "{} descriptors instead of {count}",
                self.descriptors()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
