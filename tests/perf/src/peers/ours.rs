//! Our own sidecar, fed by a control plane.

use super::{Role, Surroundings};
use crate::entry::Ports;
use std::process::Command;

/// The pod that gets the resources of a role.
pub(super) fn pod(role: Role) -> &'static str {
    match role {
        Role::Outbound => "outbound",
        Role::Inbound => "inbound",
        Role::Large => "large",
    }
}

pub(super) fn arguments(command: &mut Command, role: Role, ports: Ports, around: &Surroundings) {
    let (dir, pod) = (around.path(), pod(role));
    let first = if role == Role::Inbound { 4 } else { 0 };
    command.args(["proxy", "sidecar", "--concurrency", "1"]);
    for (flag, port) in
        [("--admin-port", 0), ("--status-port", 1), ("--health-port", 2), ("--metrics-port", 3)]
    {
        command.args([flag, &ports.other(first + port).to_string()]);
    }
    command.arg("--root-cert").arg(dir.join("root.pem"));
    command.arg("--token").arg(dir.join("token"));
    command.arg("--pod-info").arg(dir.join("none")).arg("--state-dir").arg(dir.join("none"));
    command
        .env("DISCOVERY_ADDRESS", format!("localhost:{}", around.control))
        .env("POD_NAME", pod)
        .env("POD_NAMESPACE", "default")
        .env("INSTANCE_IP", "127.0.0.1")
        .env("ISTIO_META_WORKLOAD_NAME", pod)
        .env("LOG_LEVEL", "warn");
}
