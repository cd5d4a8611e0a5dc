use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use rustix::net::sockopt::{
    socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl, tcp_user_timeout,
};

use super::*;
use crate::server::tests::LOOP;
use crate::server::{Address, Listener};
use crate::testing::{Guest, packet};

#[test]
fn accepted_connections_end_when_they_are_dead() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    limit(&listener, PATIENCE).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(socket_keepalive(&accepted).unwrap());
    let probes = tcp_keepintvl(&accepted).unwrap() * tcp_keepcnt(&accepted).unwrap();
    assert_eq!(tcp_keepidle(&accepted).unwrap() + probes, PATIENCE);
    let timeout = tcp_user_timeout(&accepted).unwrap();
    assert_eq!(u128::from(timeout), PATIENCE.as_millis());
}

/// A network of this thread's own, with nothing in it but a link to itself. False where
/// the user may not have one.
#[allow(unsafe_code)]
fn own_network() -> bool {
    // SAFETY: a system call on an integer; it changes where this thread's new sockets are.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    result == 0 && set_link("up")
}

fn set_link(state: &str) -> bool {
    let ip = Command::new("ip")
        .args(["link", "set", "lo", state])
        .status();
    ip.is_ok_and(|status| status.success())
}

/// A client that has stopped the guest, and one that waits for a stop.
fn attach(address: &Address, then: &str) -> TcpStream {
    let Address::Tcp { host, port } = address else {
        panic!("no TCP address");
    };
    let mut client = TcpStream::connect((host.as_str(), *port)).unwrap();
    for body in ["?", "QStartNoAckMode", "Z0,1fff,1"] {
        client.write_all(&packet(body.as_bytes())).unwrap();
        let mut byte = [0];
        while byte != *b"#" {
            client.read_exact(&mut byte).unwrap();
        }
        client.read_exact(&mut [0; 2]).unwrap();
    }
    client.write_all(&packet(then.as_bytes())).unwrap();
    client
}

#[test]
fn a_guest_is_let_go_when_the_link_to_its_gdb_is_cut() {
    let test = || {
        if !own_network() {
            return println!("not shown: this user may not have a network of its own");
        }
        for then in ["", "vCont;c", "m0,10000"] {
            assert!(set_link("up"));
            let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
            limit(&listener, Duration::from_secs(2)).unwrap();
            let address = listener.address().clone();
            let guest = Guest::listening(listener, LOOP, &[0x1000, 0x1000]);
            let client = attach(&address, then);
            assert!(set_link("down"));
            guest.until_undisturbed();
            drop(client);
        }
    };
    thread::spawn(test).join().unwrap();
}
