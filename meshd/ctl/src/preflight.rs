//! What a machine must have before a cluster can start on it; each lack with the command that mends it.

use crate::{
    control,
    failure::{Exit, Failure, Outcome},
    place::{Place, program},
};
use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

/// A port that a dying process holds is free within this time.
const PORT_FREED: Duration = Duration::from_secs(1);

/// Checks everything; returns a line about the machine.
pub async fn check(place: &Place, api_port: u16, ingress_port: u16) -> Outcome<String> {
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
    let cgroup = cgroup()?;
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Err(Failure::new(Exit::Failed, "the kernel has no overlayfs").fix("modprobe overlay"));
    }
    for name in ["cluster", "container-shim", "meshd", "sidecar"] {
        program(name)?;
    }
    if control::status(&place.socket()).await?.is_none() {
        free(api_port, "--api-port").await?;
        free(ingress_port, "--ingress-port").await?;
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!("kernel {}, {cgroup}, overlayfs, nft", kernel.trim().split('-').next().unwrap_or_default()))
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

/// The memory controller must be there, in either version.
fn cgroup() -> Outcome<&'static str> {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if v2.split_whitespace().any(|c| c == "memory") {
        return Ok("cgroup v2");
    }
    if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        return Ok("cgroup v1");
    }
    Err(Failure::new(
        Exit::Failed,
        "there is no cgroup memory controller, so containers could not be limited",
    )
    .fix("mount -t cgroup2 none /sys/fs/cgroup, or boot without cgroup_disable=memory"))
}
