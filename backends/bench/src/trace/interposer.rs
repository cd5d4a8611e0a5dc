//! Who has kicks and calls pass the proxy.

use std::io;

use vhost_user_wire::Raw;

use super::faults::Injector;
use super::record::Side;
use super::recorder::ConnectionRecorder;

/// Stands between the rings of one connection. Its methods are called from several threads.
pub trait Interposer: Send + Sync {
    /// Learns from a message of the frontend, and changes what it hands over, such as eventfds.
    ///
    /// # Errors
    /// Nothing can be passed on any more; the connection ends.
    fn request(&self, raw: &mut Raw) -> io::Result<()>;

    /// The same for a message of the backend on the frontend's channel.
    fn reply(&self, _raw: &mut Raw) -> io::Result<()> {
        Ok(())
    }

    /// A side has hung up, which the other does not know yet.
    fn closed(&self, _by: Side) {}

    /// Passes signals on until the connection [ends](Self::end), or a fault cuts it: then it
    /// returns `true`.
    fn run(&self, recorder: &ConnectionRecorder, injector: Option<&Injector>) -> io::Result<bool>;

    /// The connection is over.
    fn end(&self);
}
