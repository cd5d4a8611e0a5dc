//! A small frontend with a driver of its own, with one break in it if asked for.
//!
//! It is sound without a break: it sets up an entropy device, makes requests, stops and restarts
//! its ring, adds and removes memory, has written pages logged and carries the device's state where
//! that is offered, and then serves the backend's channel until it is ended. It
//! connects once more when the backend leaves.

pub mod breaks;
mod channel;
mod guest;
mod link;
mod migration;
mod session;

use std::os::unix::net::UnixStream;
use std::path::Path;

use breaks::Break;
use link::Gone;
use session::{Kept, Session};

/// Plays it, with connections to `path`.
pub fn run(path: &Path, what: Break) {
    let mut kept = Kept::default();
    for _ in 0..2 {
        let Ok(stream) = UnixStream::connect(path) else {
            break;
        };
        match Session::new(stream, what, &mut kept).run() {
            Err(Gone::Closed) if what.aborts_when_left() => std::process::abort(),
            Err(Gone::Wrong(_)) if what == Break::AbortsWhenRefused => std::process::abort(),
            Err(Gone::Wrong(why)) => {
                println!("{why}");
                std::process::exit(1);
            }
            _ => {}
        }
    }
}
