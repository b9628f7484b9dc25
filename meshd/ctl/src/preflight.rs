//! What a machine must have before a cluster can start on it; each lack with the command that mends it.

use crate::{
    control,
    failure::{Exit, Failure, Outcome},
    place::{Place, program},
    settings::Settings,
};
use std::{fs, net::TcpListener, process::Command, time::Duration};

/// A port that a dying process holds is free within this time.
const PORT_FREED: Duration = Duration::from_secs(1);

/// Checks everything; returns a line about the machine.
pub async fn check(place: &Place, settings: &Settings) -> Outcome<String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(
            Exit::Failed,
            "a cluster makes network namespaces and mounts, which only root may",
        )
        .fix("run it as root: sudo meshctl up"));
    }
    for (tool, package) in [("nft", "nftables"), ("ip", "iproute2")] {
        let found = Command::new(tool).arg("-V").output().is_ok_and(|output| output.status.success());
        if !found {
            return Err(Failure::new(Exit::Failed, format!("the program `{tool}` is missing"))
                .fix(format!("apt-get install {package}")));
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Err(Failure::new(Exit::Failed, "the kernel has no overlayfs").fix("modprobe overlay"));
    }
    for name in ["cluster", "container-shim", "meshd", "sidecar"] {
        program(name)?;
    }
    if control::status(&place.socket()).await?.is_none() {
        free(settings.api_port, "--api-port").await?;
        free(settings.ingress_port, "--ingress-port").await?;
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!(
        "kernel {}, {}, overlayfs, nft",
        kernel.trim().split('-').next().unwrap_or_default(),
        cgroup()
    ))
}

async fn free(port: u16, flag: &str) -> Outcome {
    let deadline = tokio::time::Instant::now() + PORT_FREED;
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(()),
            // A cluster that has just been killed may not have given it back yet.
            Err(_) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            Err(error) => {
                let failure =
                    Failure::new(Exit::Failed, format!("port {port} on 127.0.0.1 is taken ({error})"));
                return Err(failure.fix(format!("choose another: {flag} {}", port.wrapping_add(1).max(1024))));
            }
        }
    }
}

/// Which version limits containers. What is missing the cluster process says.
fn cgroup() -> &'static str {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if v2.split_whitespace().any(|c| c == "memory") { "cgroup v2" } else { "cgroup v1" }
}
