//! Which connector goes with an address.

use super::connect::Dial;
use super::connector::Connector;
use super::listen::Listener;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::{Address, Options};

/// A source of connections to a backend that was not started from here.
pub fn connector(options: &Options) -> Result<Box<dyn Connector>, Error> {
    let problem = match &options.address {
        Address::Socket(path) => return Ok(Box::new(Dial(path.clone()))),
        Address::Listen(path) => match Listener::bind(path) {
            Ok(listener) => return Ok(Box::new(listener)),
            Err(error) => Problem::Listen(error),
        },
        Address::Command(_) => Problem::NotSupervised,
    };
    Err(Error {
        id: options.id.clone(),
        address: options.address.clone(),
        problem,
    })
}
