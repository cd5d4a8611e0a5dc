//! Where gdb connects: the value of `--gdb`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path that fits a `sockaddr_un` with its terminating zero (unix(7)).
const MAX_UNIX_PATH: usize = 107;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix-domain socket at this path.
    Unix(PathBuf),
    /// A TCP port. The host is a name or an address; loopback unless one is given.
    Tcp { host: String, port: u16 },
}

/// The user's address is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the gdb address is empty; give unix:PATH or [HOST]:PORT")]
    Empty,
    #[error("the gdb address \"unix:\" names no path; give unix:PATH")]
    NoPath,
    #[error(
        "the gdb socket path is {0} bytes long and a Unix socket allows {MAX_UNIX_PATH}; \
         use a shorter path"
    )]
    PathTooLong(usize),
    #[error(
        "the gdb address {address:?} has no port from 0 to 65535 ({port:?}); \
         give unix:PATH or [HOST]:PORT"
    )]
    BadPort { address: String, port: String },
    #[error("the gdb address {0:?} names an IPv6 host without brackets; give [HOST]:PORT")]
    BareIpv6(String),
}

impl FromStr for Address {
    type Err = AddressError;

    /// `unix:PATH`, `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        match text.strip_prefix("unix:") {
            Some(path) => unix(path),
            None => tcp(text),
        }
    }
}

fn unix(path: &str) -> Result<Address, AddressError> {
    if path.is_empty() {
        return Err(AddressError::NoPath);
    }
    if path.len() > MAX_UNIX_PATH {
        return Err(AddressError::PathTooLong(path.len()));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn tcp(text: &str) -> Result<Address, AddressError> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if bracketed.is_none() && host.contains(':') {
        return Err(AddressError::BareIpv6(text.to_owned()));
    }
    let port = port.parse().map_err(|_| AddressError::BadPort {
        address: text.to_owned(),
        port: port.to_owned(),
    })?;
    let host = match bracketed.unwrap_or(host) {
        "" => IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
        host => host.to_owned(),
    };
    Ok(Address::Tcp { host, port })
}

impl fmt::Display for Address {
    /// The form that gdb's `target remote` takes, but for the `unix:` prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn accepts_every_documented_form() {
        for (text, address) in [
            ("unix:/run/gdb.sock", Address::Unix("/run/gdb.sock".into())),
            ("unix:gdb:1", Address::Unix("gdb:1".into())),
            ("1234", tcp("127.0.0.1", 1234)),
            (":1234", tcp("127.0.0.1", 1234)),
            ("example.org:1", tcp("example.org", 1)),
            ("0.0.0.0:0", tcp("0.0.0.0", 0)),
            ("[::1]:1234", tcp("::1", 1234)),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        let port = |address: &str, port: &str| AddressError::BadPort {
            address: address.to_owned(),
            port: port.to_owned(),
        };
        for (text, error) in [
            ("", AddressError::Empty),
            ("unix:", AddressError::NoPath),
            ("localhost", port("localhost", "localhost")),
            ("localhost:", port("localhost:", "")),
            (":65536", port(":65536", "65536")),
            ("::1:1234", AddressError::BareIpv6("::1:1234".into())),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(MAX_UNIX_PATH));
        assert_eq!(
            long.parse::<Address>(),
            Err(AddressError::PathTooLong(MAX_UNIX_PATH + 1))
        );
    }

    #[test]
    fn displays_what_it_parses() {
        for text in ["unix:/a", "127.0.0.1:1", "[::1]:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }
}
