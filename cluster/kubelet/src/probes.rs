//! Probes of one running container: a startup probe first, then liveness and readiness side by side.
//!
//! Verdicts go to the pod's worker, failures to events. Beyond Kubernetes: until its first success, a startup or readiness probe that
//! only dials is tried more often within its first period, so that a container that is up in 20 ms need not wait a second to be seen;
//! failures of those early attempts do not count.

pub(crate) mod dial;
pub(crate) mod tally;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster_containers::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use self::tally::{Tally, Thresholds};
use crate::backoff::{after, until};
use crate::events::Severity;
use crate::node::Node;
use crate::pod;
use crate::state::ProbeResults;

const EARLY_FIRST: Duration = Duration::from_millis(10);
const EARLY_MAX: Duration = Duration::from_millis(250);

/// The container that is probed.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) id: ContainerId,
    pub(crate) ip: IpAddr,
    pub(crate) started_at: Timestamp,
}

/// What a probe has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The startup probe succeeded.
    Started,
    /// The readiness probe's verdict changed.
    Ready(bool),
    /// The container must be restarted; it may take this long to stop.
    Restart(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

/// Probes until the container is to be restarted; `report` gets every change of verdict. `known` is where an earlier process left off.
pub(crate) async fn watch<F, R>(target: Target, known: ProbeResults, report: F)
where
    F: Fn(Verdict) -> R,
    R: Future<Output = ()>,
{
    let container = &target.container;
    if let Some(probe) = container.startup_probe.as_ref().filter(|_| !known.startup) {
        let mut failed = false;
        let judge = |success: bool| {
            failed = !success;
            Next::Stop
        };
        run(&target, Kind::Startup, probe, None, judge, &report).await;
        if failed {
            report(restart(&target, Kind::Startup, probe)).await;
            return;
        }
        report(Verdict::Started).await;
    }
    let readiness = async {
        let Some(probe) = &container.readiness_probe else { return };
        let mut last = known.readiness;
        let judge = |success: bool| {
            let changed = std::mem::replace(&mut last, success) != success;
            if changed { Next::Report(Verdict::Ready(success)) } else { Next::Continue }
        };
        run(&target, Kind::Readiness, probe, Some(known.readiness), judge, &report).await;
    };
    let liveness = async {
        let Some(probe) = &container.liveness_probe else { return };
        let judge = |success: bool| if success { Next::Continue } else { Next::Stop };
        run(&target, Kind::Liveness, probe, Some(true), judge, &report).await;
        report(restart(&target, Kind::Liveness, probe)).await;
    };
    tokio::join!(readiness, liveness);
}

fn restart(target: &Target, kind: Kind, probe: &Probe) -> Verdict {
    let word = if kind == Kind::Startup { "startup" } else { "liveness" };
    let message = format!("Container {} failed {word} probe, will be restarted", target.container.name);
    target.event(Severity::Normal, "Killing", message);
    let own = probe.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
    Verdict::Restart(own.map_or_else(|| pod::grace(&target.pod), Duration::from_secs))
}

/// What follows from a threshold that was reached.
enum Next {
    Continue,
    Report(Verdict),
    Stop,
}

/// Repeats one probe; `judge` is told each time a threshold is reached.
async fn run<R: Future<Output = ()>>(
    target: &Target,
    kind: Kind,
    probe: &Probe,
    known: Option<bool>,
    mut judge: impl FnMut(bool) -> Next,
    report: &impl Fn(Verdict) -> R,
) {
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let count = |value: Option<i32>, default: u32| {
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
    };
    let thresholds =
        Thresholds { success: count(probe.success_threshold, 1), failure: count(probe.failure_threshold, 3) };
    let mut tally = Tally::default();
    let first = after(target.started_at, seconds(probe.initial_delay_seconds, 0));
    tokio::time::sleep(until(first, Timestamp::now())).await;
    if kind != Kind::Liveness && probe.exec.is_none() && known != Some(true) {
        let end = tokio::time::Instant::now() + period;
        if early(target, probe, limit, end).await
            && let Some(success) = tally.record(true, thresholds)
            && follow(judge(success), report).await
        {
            return;
        }
    }
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    if tally.has_begun() {
        ticks.reset();
    }
    loop {
        ticks.tick().await;
        let result = attempt(target, probe, limit).await;
        if let Err(failure) = &result {
            let word = match kind {
                Kind::Startup => "Startup",
                Kind::Liveness => "Liveness",
                Kind::Readiness => "Readiness",
            };
            target.event(Severity::Warning, "Unhealthy", format!("{word} probe failed: {failure}"));
        }
        if let Some(success) = tally.record(result.is_ok(), thresholds)
            && follow(judge(success), report).await
        {
            return;
        }
    }
}

/// Reports what is to be reported; true when the probe is over.
async fn follow<R: Future<Output = ()>>(next: Next, report: &impl Fn(Verdict) -> R) -> bool {
    match next {
        Next::Continue => false,
        Next::Report(verdict) => {
            report(verdict).await;
            false
        }
        Next::Stop => true,
    }
}

/// Tries in quick succession until the first success, which is true, or until `end`.
async fn early(target: &Target, probe: &Probe, limit: Duration, end: tokio::time::Instant) -> bool {
    let mut wait = EARLY_FIRST;
    let attempts = async {
        while attempt(target, probe, limit).await.is_err() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(EARLY_MAX);
        }
    };
    tokio::time::timeout_at(end, attempts).await.is_ok()
}

async fn attempt(target: &Target, probe: &Probe, limit: Duration) -> Result<(), dial::Failure> {
    let (node, container) = (&target.node, &target.container);
    if let Some(action) = &probe.exec {
        let argv = action.command.clone().unwrap_or_default();
        return match node.runtime.exec_sync(&target.id, argv, limit).await {
            Ok(result) if result.code == 0 => Ok(()),
            Ok(result) => {
                let mut output = result.stdout;
                output.extend(result.stderr);
                output.truncate(10 << 10);
                Err(String::from_utf8_lossy(&output).into_owned())
            }
            Err(error) => Err(base_types::ErrorChain(&error).to_string()),
        };
    }
    if let Some(action) = &probe.http_get {
        return dial::http_get(&node.namespace, container, action, target.ip, limit).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let port = dial::port(container, &action.port)?;
        let ip = action.host.as_deref().and_then(|host| host.parse().ok()).unwrap_or(target.ip);
        return dial::tcp(&node.namespace, SocketAddr::new(ip, port), limit).await;
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("port {} is out of range", action.port))?;
        let service = action.service.as_deref().unwrap_or_default();
        return dial::grpc(&node.namespace, SocketAddr::new(target.ip, port), service, limit).await;
    }
    Err("missing probe handler".to_owned())
}

// === impl Target ===

impl Target {
    fn event(&self, severity: Severity, reason: &str, message: String) {
        self.node.events.container(&self.pod, &self.container.name, severity, reason, message);
    }
}
