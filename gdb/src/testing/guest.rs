//! A toy machine with a gdb server on it.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::{Rsp, Toy, Watcher};
use crate::server::{
    Address, Detacher, Ended, Listener, Options, ServeError, Wait, detacher, serve,
};
use crate::target::HostTraps;

/// The machine runs and the server serves until this is dropped or ended.
pub struct Guest {
    pub watcher: Watcher,
    /// Where it listens, unless the test knows.
    pub socket: PathBuf,
    pub detacher: Detacher,
    stop: UnixStream,
    server: Option<JoinHandle<Result<Ended, ServeError>>>,
    _dir: Option<tempfile::TempDir>,
}

impl Guest {
    pub fn start(code: &[u8], rips: &[u64]) -> Self {
        Self::on_host(code, rips, super::ALL_TRAPS)
    }

    pub fn on_host(code: &[u8], rips: &[u64], traps: HostTraps) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gdb");
        let listener = Listener::bind(&Address::Unix(socket.clone())).unwrap();
        let mut guest = Self::serving(listener, code, rips, traps);
        guest.socket = socket;
        guest._dir = Some(dir);
        guest
    }

    /// Serves a listener of the test's.
    pub fn listening(listener: Listener, code: &[u8], rips: &[u64]) -> Self {
        Self::serving(listener, code, rips, super::ALL_TRAPS)
    }

    fn serving(listener: Listener, code: &[u8], rips: &[u64], traps: HostTraps) -> Self {
        let mut toy = Toy::start(code, rips, traps);
        let watcher = toy.watcher();
        let (stop, stop_out) = UnixStream::pair().unwrap();
        let (detacher, detach) = detacher().unwrap();
        let server = std::thread::spawn(move || {
            let options = Options {
                wait: Wait::No,
                kill: false,
                stop: stop_out.as_fd(),
                detach: &detach,
            };
            serve(&listener, &mut toy, &options)
        });
        Self {
            watcher,
            socket: PathBuf::new(),
            detacher,
            stop,
            server: Some(server),
            _dir: None,
        }
    }

    /// A client that has not said anything yet.
    pub fn connect(&self) -> Rsp {
        Rsp::connect(&self.socket)
    }

    /// A client that has stopped the guest.
    pub fn attach(&self) -> Rsp {
        let mut rsp = self.connect();
        assert!(
            rsp.ask("qSupported:multiprocess-;swbreak+;hwbreak+")
                .contains("vContSupported+")
        );
        assert_eq!(rsp.ask("?"), "T05thread:01;");
        rsp
    }

    /// Waits until the guest runs as if there had never been a debugger.
    pub fn until_undisturbed(&self) {
        self.watcher
            .until("the guest runs undisturbed", |state| state.is_undisturbed());
    }

    /// Waits for the server to end by itself.
    pub fn ended(mut self) -> Ended {
        self.server.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = self.stop.write_all(b"stop");
            let ended = server.join();
            if !std::thread::panicking() {
                assert_eq!(ended.unwrap().unwrap(), Ended::Stopped);
            }
        }
    }
}
