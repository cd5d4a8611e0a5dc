//! `outboard-net` on taps that somebody else has opened.

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{DEADLINE, connect_within};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

const NET: &str = env!("CARGO_BIN_EXE_outboard-net");

/// IFF_TAP, IFF_VNET_HDR and IFF_NO_PI, and for several queues IFF_MULTI_QUEUE (linux/if_tun.h).
const TAP: &str = "0x5002";
const QUEUE: &str = "0x5102";
const NO_HEADER: &str = "0x1002";
const TUN: &str = "0x5001";

/// Opens taps of these names and flags, and starts what comes behind `--` with their descriptors.
const OPEN: &str = "\
import fcntl, os, struct, sys
end = sys.argv.index('--')
fds = []
for tap in sys.argv[1:end]:
    name, flags = tap.split('=')
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', name.encode(), int(flags, 0)))
    os.set_inheritable(fd, True)
    fds.append(str(fd))
os.execv(sys.argv[end + 1], sys.argv[end + 1:] + ['--tap-fd', ','.join(fds)])";

/// `outboard-net` in a network of its own, as the root of it.
fn outboard_net(taps: &[(&str, &str)], socket: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "python3", "-c", OPEN]);
    command.args(taps.iter().map(|(name, flags)| format!("{name}={flags}")));
    command.args(["--", NET, "--socket"]).arg(socket);
    command
}

#[test]
fn an_open_tap_is_served_with_a_pair_of_queues_for_each_descriptor() {
    for taps in [&[("t", TAP)][..], &[("t", QUEUE), ("t", QUEUE)]] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut child = outboard_net(taps, &socket).spawn().expect("unshare(1)");
        let mut driver = connect_within(DEADLINE, &socket, 1);
        let flags = VhostUserConfigFlags::empty();
        // virtio 1.4, section 5.1.4: `status`, with VIRTIO_NET_S_LINK_UP, and the number of pairs.
        let config = driver.frontend.get_config(6, 4, flags, &[0; 4]);
        assert_eq!(config.unwrap().1, [1, 0, taps.len() as u8, 0]);
        // `speed` and `duplex`: 10 Mbit/s, or 10 Gbit/s since Linux 5.19, both ways at once.
        let config = driver.frontend.get_config(12, 5, flags, &[0; 5]);
        let [a, b, c, d, duplex]: [u8; 5] = config.unwrap().1.try_into().unwrap();
        let speed = u32::from_le_bytes([a, b, c, d]);
        assert!([10, 10_000].contains(&speed), "{speed}");
        assert_eq!(duplex, 1);
        drop(driver);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    text.into_owned()
}

#[test]
fn taps_that_cannot_be_used_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    for (taps, words) in [
        (&[("t", NO_HEADER)][..], "lacks IFF_VNET_HDR"),
        (&[("t", TUN)], "lacks IFF_TAP"),
        (&[("t", TAP), ("u", TAP)], "lacks IFF_MULTI_QUEUE"),
        (&[("t", QUEUE), ("u", QUEUE)], "several taps, t and u"),
    ] {
        let output = outboard_net(taps, &socket).output().unwrap();
        let text = refusal(&output);
        assert!(text.contains(words), "{text}");
        assert!(!socket.exists());
    }
}

#[test]
fn descriptors_that_are_no_taps_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let run = |options: &[&str]| {
        let mut command = Command::new(NET);
        command.arg("--socket").arg(&socket).args(options);
        command.stdin(Stdio::null()).output().unwrap()
    };
    for (fd, words) in [
        ("0", "descriptor 0 is no attached tap"),
        ("99", "descriptor 99 is no attached tap"),
        ("0,1", "descriptor 0 is no attached tap"),
        ("98,98", "descriptor 98 was given twice"),
    ] {
        let text = refusal(&run(&["--tap-fd", fd]));
        assert!(text.contains(words), "{text}");
    }
    let text = refusal(&run(&["--tap-fd", "0", "--queues", "2"]));
    assert!(text.contains("as many pairs as descriptors"), "{text}");
    for wrong in [
        &["--tap-fd", "-1"][..],
        &["--tap-fd", "x"],
        &["--tap-fd", "3", "--tap", "t"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
