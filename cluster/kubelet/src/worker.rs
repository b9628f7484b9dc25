//! One task per pod: it looks at what is, asks [`plan`] what to do, has it done, and publishes the status. Containers outlive it.

mod operations;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use cluster_containers::{ContainerId, ContainerState as RuntimeState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::operations::Done;
pub(crate) use self::operations::take_apart;
use crate::backoff::{self, after, until};
use crate::container::{Launch, LaunchError, Launched, termination_file};
use crate::events::Severity;
use crate::node::Node;
use crate::objects::{Hold, Snapshot, references};
use crate::plan::{self, Action};
use crate::pod::{self, Kind};
use crate::probes::{self, Verdict};
use crate::state::{ContainerState, Exit, Life, PodState, ProbeResults, Running, Sandbox, Trouble};
use crate::status;
use crate::status_writer::StatusWriter;
use crate::stop::Hooked;
use crate::volumes::token::Tokens;
use crate::{checkpoint, logs};

const SET_UP_RETRY_MIN: Duration = Duration::from_millis(500);
const SET_UP_RETRY_MAX: Duration = Duration::from_secs(30);
/// Wait before a container with a faulty configuration is tried again, unless what it refers to changes before.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
/// Longest wait for an image. Nothing is pulled, so looking again is cheap, and a person who has just loaded it is waiting.
const IMAGE_RETRY_MAX: Duration = Duration::from_secs(20);
const VOLUMES_RETRY: Duration = Duration::from_secs(10);
const FINISH_RETRY: Duration = Duration::from_secs(1);

/// What the API wants of a pod.
#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone.
    pub(crate) vanished: bool,
}

/// The way to a pod's worker.
pub(crate) struct Handle {
    pub(crate) desired: watch::Sender<Desired>,
    /// Wakes the worker to look at its containers.
    pub(crate) wake: Arc<Notify>,
}

struct Report {
    container: String,
    id: String,
    verdict: Verdict,
}

struct Worker {
    node: Arc<Node>,
    pod: Arc<Pod>,
    vanished: bool,
    state: PodState,
    saved: Option<PodState>,
    status: PodStatus,
    writer: StatusWriter,
    hold: Arc<Hold>,
    /// What the volumes were last filled with.
    snapshot: Option<Snapshot>,
    /// Away while an operation uses them.
    tokens: Option<Tokens>,
    volumes_stale: bool,
    /// Volumes that could not be refreshed are left alone until then.
    volumes_after: Option<Timestamp>,
    set_up_wait: Duration,
    finishing: bool,
    finish_after: Option<Timestamp>,
    done: bool,
    operations: JoinSet<Done>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    probes: HashMap<String, AbortOnDropHandle<()>>,
}

/// Starts the worker of `pod`; `remains` is what is left of it from an earlier process.
pub(crate) fn start(
    node: Arc<Node>,
    pod: Arc<Pod>,
    remains: PodState,
    shutdown: CancellationToken,
) -> Handle {
    let (desired, changes) = watch::channel(Desired { pod: pod.clone(), vanished: false });
    let wake = Arc::new(Notify::new());
    let worker = Worker::new(node, pod, remains);
    tokio::spawn(worker.run(changes, wake.clone(), shutdown));
    Handle { desired, wake }
}

// === impl Worker ===

impl Worker {
    fn new(node: Arc<Node>, pod: Arc<Pod>, state: PodState) -> Self {
        let hold = Arc::new(node.objects.hold(pod::namespace(&pod), &references(&pod)));
        let writer = StatusWriter::start(node.client.clone(), &pod);
        Self {
            status: pod.status.clone().unwrap_or_default(),
            volumes_stale: matches!(state.sandbox, Sandbox::Ready { .. }),
            volumes_after: None,
            vanished: false,
            saved: None,
            snapshot: None,
            tokens: Some(Tokens::default()),
            set_up_wait: SET_UP_RETRY_MIN,
            finishing: false,
            finish_after: None,
            done: false,
            operations: JoinSet::new(),
            reports: mpsc::channel(32),
            probes: HashMap::new(),
            node,
            pod,
            state,
            writer,
            hold,
        }
    }

    async fn run(
        mut self,
        mut desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
        shutdown: CancellationToken,
    ) {
        if self.state.start_time.is_none() {
            let recorded = self.pod.status.as_ref().and_then(|status| status.start_time.clone());
            self.state.start_time = Some(recorded.map_or_else(Timestamp::now, |time| time.0));
        }
        self.resume();
        loop {
            self.observe().await;
            let now = Timestamp::now();
            self.judge(now);
            let plan = plan::plan(&self.pod, &self.state, now);
            for action in plan.actions {
                self.act(action, now);
            }
            self.refresh_volumes(now);
            self.publish(now);
            if self.done || self.vanished && self.state.sandbox == Sandbox::Gone {
                self.clean_up();
                return;
            }
            let renewal = self.tokens.as_ref().and_then(Tokens::renew_at);
            let wake_at =
                [plan.wake_at, renewal, self.finish_after, self.volumes_after].into_iter().flatten().min();
            let pause = wake_at.map_or(Duration::from_secs(3600), |at| until(at, now));
            let (hold, snapshot) = (self.hold.clone(), self.snapshot.clone());
            let stale = async {
                match &snapshot {
                    Some(snapshot) => hold.changed(snapshot).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = desired.changed() => match changed {
                    Ok(()) => self.take(&desired.borrow_and_update().clone()),
                    Err(_) => return,
                },
                () = wake.notified() => {}
                Some(report) = self.reports.1.recv() => self.reported(&report),
                Some(done) = self.operations.join_next() => match done {
                    Ok(done) => self.completed(done),
                    Err(error) => tracing::error!(pod = pod::name(&self.pod), %error, "Pod operation failed"),
                },
                () = stale => self.objects_changed(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes up hooks and probes of containers that ran before this process did.
    fn resume(&mut self) {
        let running: Vec<_> = self
            .state
            .containers
            .iter()
            .filter_map(|(name, seen)| match &seen.life {
                Life::Running(running) => Some((name.clone(), running.clone())),
                _ => None,
            })
            .collect();
        for (name, running) in running {
            if running.hooked {
                self.begin_probes(&name);
            } else {
                self.hook(&name, &running.id);
            }
        }
    }

    fn take(&mut self, desired: &Desired) {
        self.vanished = desired.vanished;
        let foreign =
            desired.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        status::adopt_foreign(&mut self.status, foreign);
        let refers = references(&desired.pod);
        if refers != references(&self.pod) {
            self.hold = Arc::new(self.node.objects.hold(pod::namespace(&desired.pod), &refers));
        }
        // Labels and annotations may be shown in downward API volumes.
        self.volumes_stale |= desired.pod.metadata.labels != self.pod.metadata.labels
            || desired.pod.metadata.annotations != self.pod.metadata.annotations;
        self.pod = desired.pod.clone();
    }

    fn objects_changed(&mut self) {
        (self.volumes_stale, self.volumes_after) = (true, None);
        // Until the next refresh there is nothing to compare with.
        self.snapshot = None;
        let now = Timestamp::now();
        if let Sandbox::Failed { retry_at, .. } = &mut self.state.sandbox {
            *retry_at = now;
        }
        for seen in self.state.containers.values_mut() {
            if let Some(trouble) =
                seen.trouble.as_mut().filter(|trouble| trouble.reason == "CreateContainerConfigError")
            {
                trouble.retry_at = now;
            }
        }
    }

    /// Decides whether the pod must end, and by when.
    fn judge(&mut self, now: Timestamp) {
        let next = plan::termination(&self.pod, self.vanished, &self.state, now);
        if next == self.state.termination {
            return;
        }
        let before = std::mem::replace(&mut self.state.termination, next);
        let Some(termination) = self.state.termination.clone() else { return };
        if before.is_none() && matches!(self.state.sandbox, Sandbox::Failed { .. }) {
            self.state.sandbox = Sandbox::Absent;
        }
        // Containers that are being stopped at leisure must hurry now.
        if before.is_some_and(|before| termination.deadline < before.deadline) {
            let grace = until(termination.deadline, now);
            let stopping = self.state.containers.values().filter_map(|seen| match &seen.life {
                Life::Stopping(running) => ContainerId::parse(&running.id),
                _ => None,
            });
            for id in stopping.collect::<Vec<_>>() {
                let node = self.node.clone();
                self.operations.spawn(async move {
                    let _ended = node.runtime.stop_container(&id, nix::libc::SIGTERM, grace).await;
                    Done::Stopped
                });
            }
        }
    }

    /// Looks which live containers have ended.
    async fn observe(&mut self) {
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

    fn act(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::SetUp => self.set_up(),
            Action::Start { container } => self.launch(&container, now),
            Action::Stop { container, grace } => self.stop(&container, grace),
            Action::TearDown => {
                self.state.sandbox = Sandbox::TearingDown;
                self.operations.spawn(operations::tear_down(self.node.clone(), self.pod.clone()));
            }
            Action::Finish => self.finish(now),
        }
    }

    fn set_up(&mut self) {
        // An operation on the volumes is under way: set up when it returns.
        let Some(tokens) = self.tokens.take() else { return };
        self.state.sandbox = Sandbox::SettingUp;
        self.operations.spawn(operations::set_up(
            self.node.clone(),
            self.pod.clone(),
            self.hold.clone(),
            tokens,
        ));
    }

    fn launch(&mut self, name: &str, now: Timestamp) {
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

    fn stop(&mut self, name: &str, grace: Duration) {
        let Some(hooked) = self.hooked(name) else { return };
        let seen = self.state.container_mut(name);
        if let Life::Running(running) = std::mem::take(&mut seen.life) {
            seen.life = Life::Stopping(running);
        }
        self.operations.spawn(async move {
            hooked.stop(grace).await;
            Done::Stopped
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

    fn finish(&mut self, now: Timestamp) {
        if self.finishing || self.finish_after.is_some_and(|after| now < after) {
            return;
        }
        self.finishing = true;
        // The last status must be on its way before the object goes.
        self.publish(now);
        let flushed = self.writer.flushed();
        self.operations.spawn(operations::finish(self.node.clone(), self.pod.clone(), flushed));
    }

    fn refresh_volumes(&mut self, now: Timestamp) {
        let due = self.tokens.as_ref().and_then(Tokens::renew_at).is_some_and(|at| at <= now);
        let standing =
            matches!(self.state.sandbox, Sandbox::Ready { .. }) && self.state.termination.is_none();
        let held_back = self.volumes_after.is_some_and(|at| now < at);
        if !standing || held_back || !(self.volumes_stale || due) {
            return;
        }
        let Some(tokens) = self.tokens.take() else { return };
        (self.volumes_stale, self.volumes_after) = (false, None);
        let (node, pod, hold) = (self.node.clone(), self.pod.clone(), self.hold.clone());
        self.operations.spawn(operations::refresh(node, pod, hold, tokens, self.state.ip()));
    }

    fn completed(&mut self, done: Done) {
        let now = Timestamp::now();
        match done {
            Done::SetUp { tokens, seen, result } => {
                (self.tokens, self.snapshot) = (Some(tokens), seen);
                match result {
                    Ok(ip) => {
                        self.state.epoch += 1;
                        self.state.sandbox = Sandbox::Ready { ip };
                        self.set_up_wait = SET_UP_RETRY_MIN;
                    }
                    Err(error) => self.set_up_failed(error, now),
                }
            }
            Done::Volumes { tokens, seen, result } => {
                (self.tokens, self.snapshot) = (Some(tokens), seen);
                if let Err(error) = result {
                    self.volumes_stale = true;
                    self.volumes_after = Some(after(now, VOLUMES_RETRY));
                    self.node.events.pod(&self.pod, Severity::Warning, error.reason, error.message);
                }
            }
            Done::Launched { container, result } => self.launched(&container, *result, now),
            Done::Hooked { container, id, result } => self.hook_returned(&container, &id, result),
            Done::Stopped => {}
            Done::TornDown(Ok(())) => self.state.sandbox = Sandbox::Gone,
            Done::TornDown(Err(message)) => {
                self.node.events.pod(&self.pod, Severity::Warning, "FailedKillPod", message.clone());
                self.state.sandbox = Sandbox::Failed { message, retry_at: after(now, self.next_wait()) };
            }
            Done::Finished(Ok(())) => self.done = true,
            Done::Finished(Err(error)) => {
                tracing::warn!(pod = pod::name(&self.pod), %error, "Pod object not deleted");
                self.finishing = false;
                self.finish_after = Some(after(now, FINISH_RETRY));
            }
        }
    }

    fn next_wait(&mut self) -> Duration {
        let wait = self.set_up_wait;
        self.set_up_wait = (wait * 2).min(SET_UP_RETRY_MAX);
        wait
    }

    fn set_up_failed(&mut self, error: operations::SetUpError, now: Timestamp) {
        self.node.events.pod(&self.pod, Severity::Warning, error.reason, error.message.clone());
        let retry_at = after(now, self.next_wait());
        self.state.sandbox = Sandbox::Failed { message: error.message, retry_at };
    }

    fn launched(&mut self, name: &str, result: Result<Launched, LaunchError>, now: Timestamp) {
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

    fn hook(&mut self, name: &str, id: &str) {
        let Some(hooked) = self.hooked(name) else { return };
        let (container, id) = (name.to_owned(), id.to_owned());
        self.operations
            .spawn(async move { Done::Hooked { container, id, result: hooked.post_start().await } });
    }

    fn hook_returned(&mut self, name: &str, id: &str, result: Result<(), String>) {
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
    fn begin_probes(&mut self, name: &str) {
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

    fn reported(&mut self, report: &Report) {
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

    /// Makes the state known: to the API, to disk, and to those who serve questions about pods.
    fn publish(&mut self, now: Timestamp) {
        self.status = status::compute(&self.pod, &self.state, &self.status, self.node.ip, now);
        if !self.vanished {
            self.writer.write(&self.status);
        }
        if self.saved.as_ref() == Some(&self.state) {
            return;
        }
        self.report_back_offs(now);
        self.node.pods.publish(&self.pod, &self.state);
        let directory = self.node.pod_dir(pod::uid(&self.pod));
        match checkpoint::save(&directory, &self.state) {
            Ok(()) => self.saved = Some(self.state.clone()),
            Err(error) => tracing::warn!(pod = pod::name(&self.pod), %error, "Checkpoint not written"),
        }
    }

    /// Says once per wait that a crashing container is held back.
    fn report_back_offs(&self, now: Timestamp) {
        if self.state.termination.is_some() || plan::outcome(&self.pod, &self.state).is_some() {
            return;
        }
        for (name, seen) in &self.state.containers {
            let before = self.saved.as_ref().map(|saved| &saved.container(name).life);
            let held = matches!(plan::held_back(seen, now), Some((_, Some(_))));
            if held && before != Some(&seen.life) {
                let (pod, namespace) = (pod::name(&self.pod), pod::namespace(&self.pod));
                let uid = pod::uid(&self.pod);
                let text =
                    format!("Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})");
                self.node.events.container(&self.pod, name, Severity::Warning, "BackOff", text);
            }
        }
    }

    /// Removes the last traces of a pod whose object is gone.
    fn clean_up(&self) {
        let uid = pod::uid(&self.pod);
        self.node.pods.remove(uid);
        let logs = self.node.log_dir(pod::namespace(&self.pod), pod::name(&self.pod), uid);
        for directory in [self.node.pod_dir(uid), logs] {
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %directory.display(), %error, "Remains of a pod not removed");
                }
                _ => {}
            }
        }
    }
}
