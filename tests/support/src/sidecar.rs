//! Our own sidecar as a process, told by a control plane on loopback.

use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the sidecar is told beside its configuration.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Name of its pod, by which the control plane knows it.
    pub pod: &'a str,
    /// Port of the control plane's TLS.
    pub control_port: u16,
    /// Folder with `root.pem` and `token`; the log comes there, too.
    pub dir: &'a Path,
    /// First of four ports in a row: admin, status, health, metrics.
    pub first_port: u16,
}

/// The binary of this build, made anew when its sources have changed.
///
/// # Errors
/// When it cannot be built.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SIDECAR") {
        return Ok(path.into());
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "-p", "sidecar-app"]).current_dir(crate::root());
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A test runs from `…/debug/deps`, the binary is in `…/debug`.
    let own = std::env::current_exe()?;
    let folder =
        own.ancestors().find(|it| it.ends_with("debug")).context("this is no test of a debug build")?;
    Ok(folder.join("sidecar"))
}

/// Starts the sidecar with one worker.
///
/// # Errors
/// When it cannot be built or started.
pub fn start(options: &Options<'_>) -> Result<Process> {
    let Options { pod, control_port, dir, first_port } = *options;
    let mut command = Command::new(program()?);
    command.args(["proxy", "sidecar", "--concurrency", "1"]);
    for (flag, offset) in
        [("--admin-port", 0), ("--status-port", 1), ("--health-port", 2), ("--metrics-port", 3)]
    {
        command.args([flag, &(first_port + offset).to_string()]);
    }
    command.arg("--root-cert").arg(dir.join("root.pem")).arg("--token").arg(dir.join("token"));
    command.arg("--pod-info").arg(dir.join("none")).arg("--state-dir").arg(dir.join("none"));
    command
        .env("DISCOVERY_ADDRESS", format!("localhost:{control_port}"))
        .env("POD_NAME", pod)
        .env("POD_NAMESPACE", "default")
        .env("INSTANCE_IP", "127.0.0.1")
        .env("ISTIO_META_WORKLOAD_NAME", pod)
        .env("LOG_LEVEL", "warn");
    Process::start(command, &dir.join(format!("{pod}.log")))
}
