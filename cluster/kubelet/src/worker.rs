//! One task per pod: it looks at what is, asks [`plan`] what to do, has it done, and publishes the status. Containers outlive it.

mod containers;
mod operations;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use cluster_containers::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::operations::Done;
pub(crate) use self::operations::take_apart;
use crate::backoff::{after, until};
use crate::checkpoint;
use crate::events::Severity;
use crate::node::Node;
use crate::objects::{Hold, Snapshot, references};
use crate::plan::{self, Action};
use crate::pod;
use crate::probes::Verdict;
use crate::state::{Life, PodState, PreStop, Sandbox};
use crate::status;
use crate::status_writer::StatusWriter;
use crate::volumes::token::Tokens;

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
        for seen in self.state.containers.values_mut().filter(|seen| seen.pre_stop == PreStop::Running) {
            // The hook ended with the process that had called it.
            seen.pre_stop = PreStop::NotRun;
        }
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
        let before = std::mem::replace(&mut self.pod, desired.pod.clone());
        self.replace_changed(&before);
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
                    Done::Hurried
                });
            }
        }
    }

    fn act(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::SetUp => self.set_up(),
            Action::Start { container } => self.launch(&container, now),
            Action::PreStop { container, grace } => self.pre_stop(&container, grace),
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
            Done::PreStopped { container } => self.state.container_mut(&container).pre_stop = PreStop::Done,
            Done::Stopped { container } => self.stopped(&container),
            Done::Hurried => {}
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
