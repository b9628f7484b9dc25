//! Envoy, with the same messages that ours gets, as a bootstrap.

use super::Role;
use crate::entry::Ports;
use crate::identity::Identity;
use crate::resources::Resources;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

pub(super) fn arguments(
    command: &mut Command,
    role: Role,
    ports: Ports,
    identities: [&Identity; 2],
    dir: &Path,
) -> Result<()> {
    let config = dir.join(format!("envoy-{role:?}.pb"));
    std::fs::write(&config, Resources::of(role, identities, ports, false).bootstrap())?;
    command.arg("--config-path").arg(config);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]);
    Ok(())
}
