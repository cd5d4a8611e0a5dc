//! How a machine reaches the backends of its devices.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use devices::vhost_user::{self, Connector, Options, Problem};
use host_io::sockets;
use workbench::trace::faults::Faults;
use workbench::trace::proxy::Session;
use workbench::trace::rings::Rings;
use workbench::trace::{Interposer, Recorder};

use crate::config::Device;
use crate::supervisor::Supervisor;

/// Gives each device a source of connections.
pub struct Backends {
    supervisor: Supervisor,
    /// If somebody is to stand on the connections' way.
    proxies: Option<Proxies>,
}

/// What stands between devices and their backends.
#[derive(Clone)]
pub struct Proxies {
    /// Writes down what is said.
    pub recorder: Recorder,
    /// What is done wrong on purpose.
    pub faults: Option<Faults>,
    /// Kicks and calls pass too.
    pub rings: bool,
}

impl Backends {
    pub fn new(supervisor: Supervisor, proxies: Option<Proxies>) -> Self {
        Self {
            supervisor,
            proxies,
        }
    }

    /// To be used on the main thread, with which processes that are started end.
    pub fn connector(&self, device: &Device) -> Result<Box<dyn Connector>, vhost_user::Error> {
        let options = &device.options;
        let connector: Box<dyn Connector> = match &device.command {
            Some(command) => Box::new(self.supervisor.connector(&options.id, command)),
            None => vhost_user::connector(options)?,
        };
        Ok(match &self.proxies {
            None => connector,
            Some(proxies) => Box::new(Proxied {
                connector,
                proxies: proxies.clone(),
                options: options.clone(),
                process: None,
            }),
        })
    }
}

/// Connections with a proxy on their way.
struct Proxied {
    connector: Box<dyn Connector>,
    proxies: Proxies,
    options: Options,
    /// The process behind the last connection.
    process: Option<u32>,
}

impl Proxied {
    /// Its threads end with the connection.
    fn interpose(&self, backend: UnixStream) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let Options {
            id, device_type, ..
        } = &self.options;
        let Proxies {
            recorder,
            faults,
            rings,
        } = &self.proxies;
        let inject = |faults: &Faults| faults.injector(id, &backend, self.process);
        let injector = faults.as_ref().map(inject).transpose()?;
        if let Some(injector) = &injector {
            injector.narrow(&ours)?;
        }
        let rings: Option<Box<dyn Interposer>> = match rings {
            true => Some(Box::new(Rings::new()?)),
            false => None,
        };
        let recorder = recorder.connected(id, Some(*device_type));
        Session::start(theirs, backend, recorder, rings, injector)?;
        Ok(ours)
    }
}

impl Connector for Proxied {
    fn connect(&mut self) -> Result<UnixStream, Problem> {
        let backend = self.connector.connect()?;
        self.process = self.connector.process().or_else(|| sockets::peer(&backend));
        self.interpose(backend).map_err(Problem::Between)
    }

    fn arrivals(&self) -> Option<BorrowedFd<'_>> {
        self.connector.arrivals()
    }

    fn kill(&mut self) -> bool {
        self.connector.kill()
    }

    fn exit_report(&mut self) -> Option<Problem> {
        self.connector.exit_report()
    }

    fn is_supervisor(&self) -> bool {
        self.connector.is_supervisor()
    }

    fn process(&self) -> Option<u32> {
        self.process
    }

    fn replace(&mut self) {
        self.connector.replace();
    }
}
