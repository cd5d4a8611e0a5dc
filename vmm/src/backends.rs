//! How a machine reaches the backends of its devices.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use devices::vhost_user::{self, Connector, Options, Problem};
use host_io::sockets;
use workbench::trace::Recorder;
use workbench::trace::proxy::Session;
use workbench::trace::rings::Rings;

use crate::config::Device;
use crate::supervisor::Supervisor;

/// Gives each device a source of connections.
pub struct Backends {
    supervisor: Supervisor,
    /// Writes down what is said on the connections, if somebody wants to know.
    recorder: Option<Recorder>,
    /// With what passes the rings.
    rings: bool,
}

impl Backends {
    pub fn new(supervisor: Supervisor, recorder: Option<Recorder>, rings: bool) -> Self {
        Self {
            supervisor,
            recorder,
            rings,
        }
    }

    /// To be used on the main thread, with which processes that are started end.
    pub fn connector(&self, device: &Device) -> Result<Box<dyn Connector>, vhost_user::Error> {
        let options = &device.options;
        let connector: Box<dyn Connector> = match &device.command {
            Some(command) => Box::new(self.supervisor.connector(&options.id, command)),
            None => vhost_user::connector(options)?,
        };
        Ok(match &self.recorder {
            None => connector,
            Some(recorder) => Box::new(Traced {
                connector,
                recorder: recorder.clone(),
                rings: self.rings,
                options: options.clone(),
                process: None,
            }),
        })
    }
}

/// Connections with a proxy on their way, which records what passes it. Without a trace there is
/// none.
struct Traced {
    connector: Box<dyn Connector>,
    recorder: Recorder,
    rings: bool,
    options: Options,
    /// The process behind the last connection.
    process: Option<u32>,
}

impl Connector for Traced {
    fn connect(&mut self) -> Result<UnixStream, Problem> {
        let backend = self.connector.connect()?;
        self.process = self.connector.process().or_else(|| sockets::peer(&backend));
        let (ours, theirs) = UnixStream::pair().map_err(Problem::Events)?;
        let Options {
            id, device_type, ..
        } = &self.options;
        let recorder = self.recorder.connected(id, Some(*device_type));
        // Its threads end with the connection.
        let rings = match self.rings {
            true => Some(Rings::new().map_err(Problem::Events)?),
            false => None,
        };
        let rings = rings.map(|rings| Box::new(rings) as _);
        Session::start(theirs, backend, recorder, rings, None).map_err(Problem::Events)?;
        Ok(ours)
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
