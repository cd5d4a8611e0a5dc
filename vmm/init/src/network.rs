//! Gives the first network interface its address, as ip(8) of the root does.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use guest_init::job::Network;

const INTERFACES: &str = "/sys/class/net";
const RESOLVER: &str = "/etc/resolv.conf";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub fn start(network: &Network) -> anyhow::Result<()> {
    let interface = interface().context("the guest has no network interface")?;
    let address = format!("{}/{}", network.address, network.prefix);
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &address, "dev", &interface])?;
    ip(&["link", "set", &interface, "up"])?;
    ip(&["route", "add", "default", "via", &network.gateway])?;
    // It may be a link to a file of a daemon that does not run here.
    let _ = fs::remove_file(RESOLVER);
    fs::write(RESOLVER, format!("nameserver {}\n", network.nameserver))?;
    Ok(())
}

fn interface() -> Option<String> {
    let names = fs::read_dir(INTERFACES).ok()?.flatten();
    let mut names = names.filter(|entry| Path::new(&entry.path()).join("device").exists());
    names.next()?.file_name().into_string().ok()
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).env("PATH", PATH).output();
    let output = output.context("cannot start ip, of the package iproute2")?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        problem.trim()
    );
    Ok(())
}
