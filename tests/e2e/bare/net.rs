//! Networks without privileges: two guests linked directly, and passt.

use std::net::UdpSocket;

use tests::backend::{self, Backend};
use tests::network::{self, Passt};
use tests::process::Stream;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, program, scratch};

use crate::host::provides;

fn start(net: &Backend, what: &str) -> Running {
    Vmm::new(guest::bare("virtio"))
        .cmdline(what)
        .device("net", &net.socket)
        .start()
}

/// The number behind `checksum=`.
fn checksum(vmm: &Running) -> String {
    let console = vmm.console();
    let (_, after) = console.split_once("checksum=").unwrap();
    after.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn two_guests_are_linked_whichever_comes_first() {
    let (here, there) = (scratch(), scratch());
    let link = here.path().join("link");
    let capture = here.path().join("capture");
    let link = link.to_str().unwrap();
    // The one that connects is there before there is anything to connect to.
    let connecting = ["--peer-connect", link];
    let connecting = backend::outboard_net(there.path(), &connecting);
    let mut echo = start(&connecting, "net=echo count=50 event_idx");
    echo.process.wait_for("net: echo ready", DEADLINE);
    let listening = ["--peer-listen", link, "--pcap", capture.to_str().unwrap()];
    let listening = backend::outboard_net(here.path(), &listening);
    listening
        .process
        .wait_for("the network peer is here", DEADLINE);
    let mut send = start(&listening, "net=send count=50 size=1000 indirect");
    for vmm in [&mut send, &mut echo] {
        vmm.process.close_stdin();
        vmm.process.expect_exit(0, DEADLINE);
    }
    assert_eq!(checksum(&send), checksum(&echo));
    let frames = network::captured(&capture);
    let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1000; 100]);
    // Each and its echo, but for the addresses.
    for pair in frames.chunks(2) {
        assert_eq!(pair[0][12..], pair[1][12..]);
    }
}

/// virtio 1.4, section 5.1.6.5.2. A reset takes the address back.
#[test]
fn a_driver_reads_the_address_that_it_has_set() {
    let dir = scratch();
    let link = dir.path().join("link");
    let options = [
        "--peer-connect",
        link.to_str().unwrap(),
        "--mac",
        "02:00:00:00:00:80",
    ];
    let net = backend::outboard_net(dir.path(), &options);
    for _ in 0..2 {
        let mut vmm = start(&net, "net=mac count=50");
        vmm.process.close_stdin();
        vmm.process.expect_exit(0, DEADLINE);
        let console = vmm.console();
        assert!(console.contains(" mac=02:00:00:00:00:80"), "{console}");
        let last = "net: last mac=02:00:00:00:00:b2";
        assert!(console.contains(last), "{console}");
    }
}

/// passt, by its stream socket.
#[test]
fn passt_gives_the_user_s_network() {
    if !provides("passt") {
        return;
    }
    let dir = scratch();
    let passt = Passt::start(dir.path());
    let net = backend::outboard_net(dir.path(), &["--passt", passt.socket()]);
    net.process.wait_for("the network peer is here", DEADLINE);
    exchange_a_datagram(|vmm| vmm.device("net", &net.socket));
}

/// A newer passt, which is a backend itself.
#[test]
fn passt_is_a_backend() {
    if !provides("passt") {
        return;
    }
    let passt = program::cached("passt/passt");
    let command = format!("{} {}", passt.display(), network::PASST_OPTIONS.join(" "));
    exchange_a_datagram(|vmm| vmm.arg("--device", format!("net,exec=\"{command}\"")));
}

/// A datagram to a port of this machine's loopback interface, which is what passt makes of its
/// gateway's address, and the answer.
fn exchange_a_datagram(connect: impl FnOnce(Vmm) -> Vmm) {
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = host.local_addr().unwrap().port();
    // From another port: passt takes the guest's on the host too.
    let source = port ^ 1;
    let cmdline = format!("net=udp port={port} source={source}");
    let vmm = Vmm::new(guest::bare("virtio")).cmdline(&cmdline);
    let mut vmm = connect(vmm).start();
    let mut datagram = [0; 100];
    let (len, from) = host.recv_from(&mut datagram).unwrap();
    assert_eq!(&datagram[..len], b"hello from outboard");
    host.send_to(b"hello from the host", from).unwrap();
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    let console = vmm.process.printed(Stream::Out);
    assert!(
        console.contains("net: udp answer: hello from the host"),
        "{console}"
    );
}
