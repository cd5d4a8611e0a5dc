//! The serial console on a pseudo-terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::terminal::make_raw;

/// A new pseudo-terminal that passes bytes as they are.
pub struct Pty {
    master: OwnedFd,
    name: String,
    /// The other side, held so that clients may come and go.
    _held: OwnedFd,
}

impl Pty {
    pub fn open() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let held = open(
            &name,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        make_raw(&held)?;
        fcntl_setfl(&master, OFlags::NONBLOCK)?;
        Ok(Self {
            master,
            name: name.to_string_lossy().into_owned(),
            _held: held,
        })
    }

    /// The path that a client opens.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn both_directions_pass_bytes_as_they_are() {
        let pty = Pty::open().unwrap();
        let mut client = File::options();
        let mut client = client.read(true).write(true).open(pty.name()).unwrap();
        rustix::io::write(&pty, b"out\n").unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"out\n");
        client.write_all(b"in\r").unwrap();
        let mut bytes = [0; 3];
        assert_eq!(rustix::io::read(&pty, &mut bytes), Ok(3));
        assert_eq!(&bytes, b"in\r");
    }
}
