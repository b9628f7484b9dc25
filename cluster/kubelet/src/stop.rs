//! Lifecycle hooks, and stopping a container: `preStop`, the stop signal, SIGKILL.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster_containers::ContainerId;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use nix::sys::signal::Signal;

use crate::events::Severity;
use crate::node::Node;
use crate::probes::dial;

/// What the process still gets after a `preStop` hook used up the grace period (Kubernetes' extra two seconds).
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);
/// Pause after a container could not be stopped.
const RETRY: Duration = Duration::from_secs(1);
/// Bound of a hook that has no grace period to bound it.
const HOOK_MAX: Duration = Duration::from_secs(3600);

/// A container to be stopped or hooked.
pub(crate) struct Hooked {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) id: ContainerId,
    pub(crate) ip: Option<IpAddr>,
}

// === impl Hooked ===

impl Hooked {
    /// Runs the `postStart` hook, if there is one.
    pub(crate) async fn post_start(&self) -> Result<(), String> {
        let lifecycle = self.container.lifecycle.as_ref();
        match lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) {
            Some(handler) => self.call(handler, HOOK_MAX).await,
            None => Ok(()),
        }
    }

    /// Runs the `preStop` hook, if there is one, for at most `grace`.
    pub(crate) async fn pre_stop(&self, grace: Duration) {
        let lifecycle = self.container.lifecycle.as_ref();
        let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
        if grace.is_zero() {
            return;
        }
        let outcome = tokio::time::timeout(grace, self.call(handler, grace)).await;
        if let Ok(Err(failure)) = outcome {
            self.event(Severity::Warning, "FailedPreStopHook", format!("PreStopHook failed: {failure}"));
        }
    }

    /// Stops the container within `grace`, its hook first when `hook`; returns when it has ended.
    pub(crate) async fn stop(&self, grace: Duration, hook: bool) {
        let name = &self.container.name;
        self.event(Severity::Normal, "Killing", format!("Stopping container {name}"));
        let begun = tokio::time::Instant::now();
        if hook {
            self.pre_stop(grace).await;
        }
        let left = grace.saturating_sub(begun.elapsed()).max(GRACE_AFTER_HOOK.min(grace));
        let signal = self.signal().await;
        if let Err(error) = self.node.runtime.stop_container(&self.id, signal, left).await {
            tracing::warn!(container = name, id = %self.id, error = %base_types::ErrorChain(&error), "Container not stopped");
            // It will be asked for again, and must not be asked for all the time.
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn signal(&self) -> i32 {
        let lifecycle = self.container.lifecycle.as_ref();
        let own = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone());
        let name = match own {
            Some(name) => Some(name),
            None => {
                let image = self.container.image.as_deref().unwrap_or_default();
                let image = self.node.runtime.images().resolve(image).await.ok().flatten();
                image.and_then(|image| image.config.stop_signal)
            }
        };
        signal_number(name.as_deref().unwrap_or("SIGTERM"))
    }

    async fn call(&self, handler: &LifecycleHandler, limit: Duration) -> Result<(), String> {
        if let Some(action) = &handler.exec {
            let argv = action.command.clone().unwrap_or_default();
            let text = argv.join(" ");
            let result = self.node.runtime.exec_sync(&self.id, argv, limit).await;
            let result = result.map_err(|error| base_types::ErrorChain(&error).to_string())?;
            return match result.code {
                0 => Ok(()),
                code => Err(format!(
                    "command '{text}' exited with {code}: {}",
                    String::from_utf8_lossy(&result.stderr)
                )),
            };
        }
        if let Some(action) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        if let Some(action) = &handler.http_get {
            let ip = self.ip.ok_or_else(|| "the pod has no address".to_owned())?;
            return dial::http_get(&self.node.namespace, &self.container, action, ip, limit).await;
        }
        Err("the hook has no supported handler".to_owned())
    }

    fn event(&self, severity: Severity, reason: &str, message: String) {
        self.node.events.container(&self.pod, &self.container.name, severity, reason, message);
    }
}

/// A signal by name (`SIGTERM`, `TERM`) or number; `SIGTERM` when it is neither.
fn signal_number(name: &str) -> i32 {
    if let Ok(number) = name.parse::<i32>()
        && (1..=64).contains(&number)
    {
        return number;
    }
    let upper = name.to_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    full.parse::<Signal>().unwrap_or(Signal::SIGTERM) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (name, number) in
            [("SIGTERM", 15), ("quit", 3), ("SIGUSR1", 10), ("9", 9), ("nonsense", 15), ("999", 15)]
        {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
