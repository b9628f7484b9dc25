//! The task that owns the state: it takes in watch events, places pods, and looks after the requests under way.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    SchedulerError,
    cluster::Cluster,
    pod::{Key, PodInfo},
    queue::Queue,
    report::{self, Bound},
    score,
};

/// Requests under way at once; further pods wait.
const AT_ONCE: usize = 64;
/// How long requests may take that are under way at the end.
const LAST_REQUESTS: Duration = Duration::from_secs(3);
/// Watch events taken in before the waiting pods are looked at.
const EVENTS: usize = 256;

/// What happened.
enum News {
    Pods(Vec<Result<Event<Pod>, watcher::Error>>),
    Nodes(Vec<Result<Event<Node>, watcher::Error>>),
    Answer(Answer),
    Time,
}

/// What a request came to.
enum Answer {
    Bound { pod: Box<PodInfo>, node: String, bound: Bound },
    Told,
}

struct Driver {
    client: Client,
    cluster: Cluster,
    queue: Queue,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Events being written: they do not hold up placing, and are left out when there are too many.
    notes: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Seen since a list began.
    listed_pods: Option<HashSet<Key>>,
    listed_nodes: Option<HashSet<String>>,
    /// Whether both lists have been complete once: before, room is not known.
    pods_known: bool,
    nodes_known: bool,
    turn: usize,
}

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> Result<(), SchedulerError> {
    let all = watcher::Config::default;
    let pods = watcher::watcher(Api::<Pod>::all(client.clone()), all()).default_backoff();
    let nodes = watcher::watcher(Api::<Node>::all(client.clone()), all()).default_backoff();
    let mut pods: BoxStream<'static, _> = Box::pin(pods.ready_chunks(EVENTS));
    let mut nodes: BoxStream<'static, _> = Box::pin(nodes.ready_chunks(EVENTS));
    let mut driver = Driver {
        client,
        cluster: Cluster::default(),
        queue: Queue::default(),
        requests: FuturesUnordered::new(),
        notes: FuturesUnordered::new(),
        listed_pods: None,
        listed_nodes: None,
        pods_known: false,
        nodes_known: false,
        turn: 0,
    };
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => {
                // A binding that is dropped may succeed without anybody knowing.
                let finish = async { while driver.requests.next().await.is_some() {} };
                let _ = tokio::time::timeout(LAST_REQUESTS, finish).await;
                return Ok(());
            }
            events = nodes.next() => News::Nodes(events.ok_or(SchedulerError::Ended("nodes"))?),
            events = pods.next() => News::Pods(events.ok_or(SchedulerError::Ended("pods"))?),
            Some(answer) = driver.requests.next(), if !driver.requests.is_empty() => News::Answer(answer),
            Some(answer) = driver.notes.next(), if !driver.notes.is_empty() => News::Answer(answer),
            () = until(driver.queue.next_time()) => News::Time,
        };
        driver.take_in(news);
        driver.place_all();
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

// === impl Driver ===

impl Driver {
    fn take_in(&mut self, news: News) {
        match news {
            News::Pods(events) => events.into_iter().for_each(|event| self.pod_event(event)),
            News::Nodes(events) => events.into_iter().for_each(|event| self.node_event(event)),
            News::Answer(Answer::Bound { pod, node, bound }) => self.bound(*pod, node, bound),
            News::Answer(Answer::Told) => {}
            News::Time => self.queue.ripen(Instant::now()),
        }
    }

    fn pod_event(&mut self, event: Result<Event<Pod>, watcher::Error>) {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                let pod = PodInfo::of(pod);
                if let Some(listed) = &mut self.listed_pods {
                    listed.insert(pod.key.clone());
                }
                self.pod(pod);
            }
            Ok(Event::Delete(pod)) => {
                let pod = PodInfo::of(pod);
                self.pod_gone(&pod.key);
            }
            Ok(Event::Init) => self.listed_pods = Some(HashSet::new()),
            Ok(Event::InitDone) => {
                let listed = self.listed_pods.take().unwrap_or_default();
                let gone: Vec<_> =
                    self.cluster.pod_keys().filter(|key| !listed.contains(*key)).cloned().collect();
                gone.iter().for_each(|key| self.pod_gone(key));
                self.pods_known = true;
            }
            Err(error) => tracing::debug!(%error, "Watch on pods failed; trying again"),
        }
    }

    fn pod(&mut self, pod: PodInfo) {
        let key = pod.key.clone();
        // A status that we wrote ourselves is no reason to try again.
        let same = |old: &PodInfo| {
            old.uid == pod.uid
                && old.affinity == pod.affinity
                && old.tolerations == pod.tolerations
                && old.waiting
        };
        let known = self.cluster.pod(&key).is_some_and(same) && self.queue.contains(&key);
        if self.cluster.set_pod(pod) {
            self.queue.room();
        }
        match self.cluster.pod(&key).filter(|pod| pod.waiting) {
            Some(pod) if !known => self.queue.add(pod),
            Some(_) => {}
            None => self.queue.remove(&key),
        }
    }

    fn pod_gone(&mut self, key: &Key) {
        self.queue.remove(key);
        if self.cluster.remove_pod(key) {
            self.queue.room();
        }
    }

    fn node_event(&mut self, event: Result<Event<Node>, watcher::Error>) {
        match event {
            Ok(Event::Apply(node) | Event::InitApply(node)) => {
                if let Some(listed) = &mut self.listed_nodes {
                    listed.extend(node.metadata.name.clone());
                }
                if self.cluster.set_node(node) {
                    self.queue.room();
                }
            }
            Ok(Event::Delete(node)) => self.cluster.remove_node(&node.metadata.name.unwrap_or_default()),
            Ok(Event::Init) => self.listed_nodes = Some(HashSet::new()),
            Ok(Event::InitDone) => {
                let listed = self.listed_nodes.take().unwrap_or_default();
                for name in self.cluster.node_names().into_iter().filter(|name| !listed.contains(name)) {
                    self.cluster.remove_node(&name);
                }
                self.nodes_known = true;
            }
            Err(error) => tracing::debug!(%error, "Watch on nodes failed; trying again"),
        }
    }

    fn bound(&mut self, pod: PodInfo, node: String, bound: Bound) {
        if bound == Bound::Yes {
            self.queue.remove(&pod.key);
            let client = self.client.clone();
            if self.notes.len() < AT_ONCE {
                self.notes.push(Box::pin(async move {
                    report::placed(&client, &pod, &node).await;
                    Answer::Told
                }));
            }
            return;
        }
        self.cluster.give_back(&pod.key, &pod.uid);
        self.queue.room();
        // If the pod is gone or bound by somebody else, the watch will tell before the pause is over.
        if let Some(pod) = self.cluster.pod(&pod.key).filter(|pod| pod.waiting) {
            self.queue.failed(pod, Instant::now());
        }
    }

    /// Places the pods that wait, as far as requests may be under way.
    fn place_all(&mut self) {
        if !self.pods_known || !self.nodes_known {
            return;
        }
        while self.requests.len() < AT_ONCE {
            let Some(key) = self.queue.next() else { return };
            let Some(pod) = self.cluster.pod(&key).filter(|pod| pod.waiting).cloned() else { continue };
            self.turn += 1;
            match score::choose(&self.cluster, &pod, self.turn) {
                Ok(node) => {
                    self.cluster.assume(&key, &node);
                    self.requests.push(Box::pin(bind(self.client.clone(), pod, node)));
                }
                Err(unfit) => {
                    self.queue.unplaceable(&pod, Instant::now());
                    if report::is_news(&pod, &unfit.message) {
                        let client = self.client.clone();
                        self.requests.push(Box::pin(async move {
                            report::unplaceable(&client, &pod, &unfit.message).await;
                            Answer::Told
                        }));
                    }
                }
            }
        }
    }
}

async fn bind(client: Client, pod: PodInfo, node: String) -> Answer {
    let bound = report::bind(&client, &pod, &node).await;
    Answer::Bound { pod: Box::new(pod), node, bound }
}
