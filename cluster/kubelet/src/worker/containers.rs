//! The containers of one pod: launched, hooked, probed, stopped, and seen to end.

use std::time::Duration;

use cluster_containers::{ContainerId, ContainerState as RuntimeState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::task::AbortOnDropHandle;

use super::operations::Done;
use super::{CONFIG_RETRY, IMAGE_RETRY_MAX, Report, Worker};
use crate::backoff::{self, after};
use crate::container::{Launch, LaunchError, Launched, termination_file};
use crate::events::Severity;
use crate::pod::{self, Kind};
use crate::probes::{self, Verdict};
use crate::state::{ContainerState, Exit, Life, PreStop, ProbeResults, Running, Trouble};
use crate::stop::Hooked;
use crate::{checkpoint, logs};

// === impl Worker ===

impl Worker {
    /// Looks which live containers have ended.
    pub(super) async fn observe(&mut self) {
        let live: Vec<(String, Running)> = self
            .state
            .containers
            .iter()
            .filter_map(|(name, seen)| seen.running().map(|running| (name.clone(), running.clone())))
            .collect();
        for (name, running) in live {
            let Some(id) = ContainerId::parse(&running.id) else { continue };
            let exit = match self.node.runtime.container_status(&id).await {
                Ok(status) => match status.state {
                    RuntimeState::Exited(exit) => checkpoint::exit_of(running.id, &exit),
                    RuntimeState::Created | RuntimeState::Running { .. } => continue,
                },
                Err(cluster_containers::Error::NoContainer(_)) => checkpoint::lost(running, Timestamp::now()),
                Err(error) => {
                    tracing::warn!(container = name, %error, "Container state unknown");
                    continue;
                }
            };
            self.exited(&name, exit);
        }
    }

    fn exited(&mut self, name: &str, mut exit: Exit) {
        self.probes.remove(name);
        let attempt = self.state.container(name).attempt;
        if exit.message.is_empty() {
            exit.message = self.last_words(name, attempt, exit.code);
        }
        let seen = self.state.container_mut(name);
        seen.life = Life::Exited(exit);
        seen.probes = ProbeResults::default();
        seen.unhealthy = None;
    }

    fn last_words(&self, name: &str, attempt: u32, code: i32) -> String {
        let file = termination_file(&self.node.pod_dir(pod::uid(&self.pod)), name, attempt);
        let written = logs::head(&file, logs::TERMINATION_BYTES_MAX);
        let policy = pod::container(&self.pod, name)
            .and_then(|(_, container)| container.termination_message_policy.as_deref());
        if written.is_empty() && code != 0 && policy == Some("FallbackToLogsOnError") {
            return logs::last_words(&self.node.log_path(&self.pod, name, attempt));
        }
        written
    }

    pub(super) fn launch(&mut self, name: &str, now: Timestamp) {
        let Some((_, container)) = pod::container(&self.pod, name) else { return };
        let Some(ip) = self.state.ip() else { return };
        let container = container.clone();
        let epoch = self.state.epoch;
        let seen = self.state.container_mut(name);
        let attempt = if seen.exit().is_some() { seen.attempt + 1 } else { 0 };
        if let Life::Exited(exit) = std::mem::replace(&mut seen.life, Life::Starting) {
            seen.backoff = Some(backoff::advance(seen.backoff.as_ref(), exit.finished_at, now));
            seen.last = Some(exit);
        }
        seen.epoch = epoch;
        seen.unhealthy = None;
        let previous = seen.last.as_ref().map(|exit| exit.id.clone());
        let (node, pod, hold) = (self.node.clone(), self.pod.clone(), self.hold.clone());
        let name = name.to_owned();
        self.operations.spawn(async move {
            let result = match hold.snapshot(pod::namespace(&pod)).await {
                Ok(objects) => Launch { node, pod, container, attempt, ip, objects, previous }.run().await,
                Err(error) => Err(LaunchError::Create {
                    reason: "CreateContainerConfigError",
                    message: error.to_string(),
                }),
            };
            Done::Launched { container: name, result: Box::new(result) }
        });
    }

    pub(super) fn stop(&mut self, name: &str, grace: Duration) {
        let Some(hooked) = self.hooked(name) else { return };
        let seen = self.state.container_mut(name);
        let hook = seen.pre_stop == PreStop::NotRun;
        if let Life::Running(running) = std::mem::take(&mut seen.life) {
            seen.life = Life::Stopping(running);
        }
        let container = name.to_owned();
        self.operations.spawn(async move {
            hooked.stop(grace, hook).await;
            Done::Stopped { container }
        });
    }

    /// A container that is found running after its stop, which failed then, is stopped once more; its hook is not repeated.
    pub(super) fn stopped(&mut self, name: &str) {
        let seen = self.state.container_mut(name);
        seen.pre_stop = PreStop::Done;
        match std::mem::take(&mut seen.life) {
            Life::Stopping(running) => seen.life = Life::Running(running),
            life => seen.life = life,
        }
    }

    pub(super) fn pre_stop(&mut self, name: &str, grace: Duration) {
        let Some(hooked) = self.hooked(name) else { return };
        self.state.container_mut(name).pre_stop = PreStop::Running;
        let container = name.to_owned();
        self.operations.spawn(async move {
            hooked.pre_stop(grace).await;
            Done::PreStopped { container }
        });
    }

    fn hooked(&self, name: &str) -> Option<Hooked> {
        let id = ContainerId::parse(&self.state.container(name).running()?.id)?;
        let (_, container) = pod::container(&self.pod, name)?;
        Some(Hooked {
            node: self.node.clone(),
            pod: self.pod.clone(),
            container: container.clone(),
            id,
            ip: self.state.ip(),
        })
    }

    pub(super) fn launched(&mut self, name: &str, result: Result<Launched, LaunchError>, now: Timestamp) {
        let hooks = pod::container(&self.pod, name)
            .and_then(|(_, container)| container.lifecycle.as_ref())
            .is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let seen = self.state.container_mut(name);
        let attempt = if seen.last.is_some() { seen.attempt + 1 } else { 0 };
        match result {
            Ok(launched) => {
                *seen = ContainerState {
                    life: Life::Running(Running {
                        id: launched.id.clone(),
                        started_at: launched.started_at,
                        hooked: !hooks,
                    }),
                    attempt,
                    image_id: launched.image_id,
                    trouble: None,
                    pull_backoff: None,
                    probes: ProbeResults::default(),
                    pre_stop: PreStop::NotRun,
                    ..std::mem::take(seen)
                };
                if hooks {
                    self.hook(name, &launched.id);
                } else {
                    self.begin_probes(name);
                }
            }
            Err(LaunchError::Start { image_id, exit, message }) => {
                let wait = seen.backoff.map_or(Duration::ZERO, |backoff| backoff.delay);
                let retry_at = after(now, wait);
                seen.trouble = Some(Trouble { reason: "RunContainerError".to_owned(), message, retry_at });
                (seen.life, seen.attempt, seen.image_id) = (Life::Exited(exit), attempt, image_id);
            }
            Err(LaunchError::Create { reason, message }) => {
                let retry_at = after(now, CONFIG_RETRY);
                seen.trouble = Some(Trouble { reason: reason.to_owned(), message, retry_at });
                seen.life = Life::Waiting;
            }
            Err(LaunchError::Image { reason, message }) => {
                seen.life = Life::Waiting;
                self.image_missing(name, reason, message, now);
            }
        }
    }

    fn image_missing(&mut self, name: &str, reason: &str, message: String, now: Timestamp) {
        let image = pod::container(&self.pod, name).and_then(|(_, container)| container.image.clone());
        let seen = self.state.container_mut(name);
        let again = seen.pull_backoff.is_some();
        let backoff = backoff::advance(seen.pull_backoff.as_ref(), now, now);
        seen.pull_backoff = Some(backoff);
        let retry_at = after(now, backoff.delay.min(IMAGE_RETRY_MAX));
        let (reason, message) = if again && reason == "ErrImagePull" {
            let text = format!("Back-off pulling image \"{}\"", image.unwrap_or_default());
            self.node.events.container(&self.pod, name, Severity::Normal, "BackOff", text.clone());
            ("ImagePullBackOff".to_owned(), format!("{text}: {reason}: {message}"))
        } else {
            (reason.to_owned(), message)
        };
        self.state.container_mut(name).trouble = Some(Trouble { reason, message, retry_at });
    }

    pub(super) fn hook(&mut self, name: &str, id: &str) {
        let Some(hooked) = self.hooked(name) else { return };
        let (container, id) = (name.to_owned(), id.to_owned());
        self.operations
            .spawn(async move { Done::Hooked { container, id, result: hooked.post_start().await } });
    }

    pub(super) fn hook_returned(&mut self, name: &str, id: &str, result: Result<(), String>) {
        let grace = pod::grace(&self.pod);
        let seen = self.state.container_mut(name);
        let Life::Running(running) = &mut seen.life else { return };
        if running.id != id {
            return;
        }
        match result {
            Ok(()) => {
                running.hooked = true;
                self.begin_probes(name);
            }
            Err(failure) => {
                seen.unhealthy = Some(grace);
                let message = format!("PostStartHook failed: {failure}");
                self.node.events.container(
                    &self.pod,
                    name,
                    Severity::Warning,
                    "FailedPostStartHook",
                    message,
                );
            }
        }
    }

    /// Starts the probes of a running container; without a probe its verdict is good from the start.
    pub(super) fn begin_probes(&mut self, name: &str) {
        let Some((kind, container)) = pod::container(&self.pod, name) else { return };
        let container = container.clone();
        let Some(ip) = self.state.ip() else { return };
        let seen = self.state.container_mut(name);
        seen.probes.startup |= container.startup_probe.is_none();
        seen.probes.readiness |= container.readiness_probe.is_none();
        let known = seen.probes;
        let any = container.startup_probe.is_some()
            || container.readiness_probe.is_some()
            || container.liveness_probe.is_some();
        let Life::Running(running) = &seen.life else { return };
        let Some(id) = ContainerId::parse(&running.id).filter(|_| any && kind != Kind::Init) else { return };
        let target = probes::Target {
            node: self.node.clone(),
            pod: self.pod.clone(),
            container,
            id: id.clone(),
            ip,
            started_at: running.started_at,
        };
        let (reports, name_of, id) = (self.reports.0.clone(), name.to_owned(), id.to_string());
        let report = move |verdict| {
            let (reports, report) =
                (reports.clone(), Report { container: name_of.clone(), id: id.clone(), verdict });
            async move {
                // The worker is gone: nobody wants to know.
                let _gone = reports.send(report).await;
            }
        };
        let task = tokio::spawn(probes::watch(target, known, report));
        self.probes.insert(name.to_owned(), AbortOnDropHandle::new(task));
    }

    pub(super) fn reported(&mut self, report: &Report) {
        let seen = self.state.container_mut(&report.container);
        if seen.running().is_none_or(|running| running.id != report.id) {
            return;
        }
        match report.verdict {
            Verdict::Started => seen.probes.startup = true,
            Verdict::Ready(ready) => seen.probes.readiness = ready,
            Verdict::Restart(grace) => seen.unhealthy = Some(grace),
        }
    }

    /// Demands the restart of running containers whose image is another one now.
    pub(super) fn replace_changed(&mut self, before: &Pod) {
        let pod = self.pod.clone();
        for (_, container) in pod::containers(&pod) {
            let name = &container.name;
            let changed = pod::container(before, name).is_some_and(|(_, old)| old.image != container.image);
            if changed && matches!(self.state.container(name).life, Life::Running(_)) {
                self.state.container_mut(name).unhealthy = Some(pod::grace(&pod));
                let message = format!("Container {name} definition changed, will be restarted");
                self.node.events.container(&pod, name, Severity::Normal, "Killing", message);
            }
        }
    }
}
