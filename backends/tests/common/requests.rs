//! A backend's own requests, as the frontend of a test hears them.

use std::io::Read;
use std::os::unix::net::UnixStream;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::BackendReq;
use vhost_user_wire::HEADER_SIZE;

use super::{DEADLINE, Driver};

/// The frontend's end of the socket.
pub struct Requests(UnixStream);

impl Requests {
    /// Gives the backend of `driver` a socket for them.
    pub fn of(driver: &mut Driver) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        driver.frontend.set_backend_request_fd(&theirs).unwrap();
        Self(ours)
    }

    /// Waits for the next one, which has to be that the configuration has changed.
    pub fn expect_config_change(&mut self) {
        let mut message = [0; HEADER_SIZE];
        self.0.read_exact(&mut message).unwrap();
        let code = u32::from(BackendReq::CONFIG_CHANGE_MSG);
        assert_eq!(message[..4], code.to_ne_bytes(), "CONFIG_CHANGE_MSG");
    }
}
