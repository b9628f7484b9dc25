//! Usage of pods and containers: one look at all of them, and `/stats/summary`.

use std::collections::HashMap;
use std::fs;

use cluster_containers::{ContainerId, ContainerState, Stats};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::node::{Node, PodEntry};
use crate::pod;

/// One running container's usage.
pub(super) struct ContainerUsage {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) image: String,
    pub(super) started_at: Timestamp,
    pub(super) stats: Stats,
    pub(super) logs_bytes: u64,
}

/// A pod's usage.
pub(super) struct PodUsage {
    pub(super) entry: PodEntry,
    pub(super) containers: Vec<ContainerUsage>,
    pub(super) total: Stats,
    pub(super) network: Network,
}

/// Traffic of a pod's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) received_bytes: u64,
    pub(super) received_packets: u64,
    pub(super) sent_bytes: u64,
    pub(super) sent_packets: u64,
}

/// CPU readings of the summary before, from which the next makes rates.
#[derive(Default)]
pub(super) struct Samples {
    last: Mutex<HashMap<String, (Timestamp, u64)>>,
}

// === impl Samples ===

impl Samples {
    /// Nanocores used since the last reading of `key`; `None` at the first.
    fn rate(&self, key: &str, now: Timestamp, usage_ns: u64) -> Option<u64> {
        let before = self.last.lock().insert(key.to_owned(), (now, usage_ns));
        let (then, used) = before?;
        let elapsed =
            u64::try_from(now.duration_since(then).as_nanos()).ok().filter(|elapsed| *elapsed > 0)?;
        let delta = u128::from(usage_ns.saturating_sub(used)) * 1_000_000_000;
        u64::try_from(delta / u128::from(elapsed)).ok()
    }

    fn keep_only(&self, keys: &[String]) {
        self.last.lock().retain(|key, _| keys.contains(key));
    }
}

/// Looks at every pod that has running containers.
pub(super) async fn look(node: &Node) -> Vec<PodUsage> {
    let mut pods = Vec::new();
    for entry in node.pods.all() {
        let mut containers = Vec::new();
        let mut network = None;
        for (_, container) in pod::containers(&entry.pod) {
            let seen = entry.state.container(&container.name);
            let Some(running) = seen.running() else { continue };
            let Some(id) = ContainerId::parse(&running.id) else { continue };
            let Ok(stats) = node.runtime.stats(&id).await else { continue };
            if network.is_none()
                && let Ok(status) = node.runtime.container_status(&id).await
                && let ContainerState::Running { pid, .. } = status.state
            {
                network = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok().map(|text| traffic(&text));
            }
            let log = node.log_path(&entry.pod, &container.name, seen.attempt);
            containers.push(ContainerUsage {
                name: container.name.clone(),
                id: running.id.clone(),
                image: container.image.clone().unwrap_or_default(),
                started_at: running.started_at,
                stats,
                logs_bytes: fs::metadata(log).map_or(0, |meta| meta.len()),
            });
        }
        if containers.is_empty() {
            continue;
        }
        let total = match node.runtime.sandbox_stats(pod::uid(&entry.pod)).await {
            Ok(total) => total,
            Err(_) => containers.iter().fold(Stats::default(), |sum, one| add(sum, one.stats)),
        };
        pods.push(PodUsage { entry, containers, total, network: network.unwrap_or_default() });
    }
    pods
}

/// The sum of two usages.
pub(super) fn add(a: Stats, b: Stats) -> Stats {
    Stats {
        cpu_usage_ns: a.cpu_usage_ns + b.cpu_usage_ns,
        memory_usage_bytes: a.memory_usage_bytes + b.memory_usage_bytes,
        memory_working_set_bytes: a.memory_working_set_bytes + b.memory_working_set_bytes,
        memory_rss_bytes: a.memory_rss_bytes + b.memory_rss_bytes,
        pids: a.pids + b.pids,
    }
}

/// Sums `/proc/net/dev` over all links but loopback.
fn traffic(text: &str) -> Network {
    let mut sum = Network::default();
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = counters.split_whitespace().map(|text| text.parse().unwrap_or(0)).collect();
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        sum.received_bytes += number(0);
        sum.received_packets += number(1);
        sum.sent_bytes += number(8);
        sum.sent_packets += number(9);
    }
    sum
}

/// The body of `/stats/summary`.
pub(super) async fn summary(node: &Node, samples: &Samples) -> Value {
    let now = Timestamp::now();
    let mut keys = vec!["node".to_owned()];
    let mut node_total = Stats::default();
    let mut pods = Vec::new();
    for pod in look(node).await {
        node_total = add(node_total, pod.total);
        let uid = pod::uid(&pod.entry.pod).to_owned();
        let containers: Vec<Value> = pod
            .containers
            .iter()
            .map(|one| {
                keys.push(one.id.clone());
                let mut shown = usage(&one.id, one.stats, samples, now);
                shown["name"] = json!(one.name);
                shown["startTime"] = json!(one.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                shown["logs"] = json!({"usedBytes": one.logs_bytes});
                shown
            })
            .collect();
        let mut shown = usage(&uid, pod.total, samples, now);
        shown["podRef"] = json!({
            "name": pod::name(&pod.entry.pod), "namespace": pod::namespace(&pod.entry.pod), "uid": uid});
        shown["startTime"] =
            json!(pod.entry.state.start_time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        shown["containers"] = json!(containers);
        shown["network"] = json!({
            "time": now, "name": "eth0", "rxBytes": pod.network.received_bytes, "txBytes": pod.network.sent_bytes});
        keys.push(uid);
        pods.push(shown);
    }
    let mut own = usage("node", node_total, samples, now);
    own["nodeName"] = json!(node.name);
    samples.keep_only(&keys);
    json!({"node": own, "pods": pods})
}

fn usage(key: &str, stats: Stats, samples: &Samples, now: Timestamp) -> Value {
    json!({
        "cpu": {
            "time": now,
            "usageNanoCores": samples.rate(key, now, stats.cpu_usage_ns).unwrap_or(0),
            "usageCoreNanoSeconds": stats.cpu_usage_ns,
        },
        "memory": {
            "time": now,
            "usageBytes": stats.memory_usage_bytes,
            "workingSetBytes": stats.memory_working_set_bytes,
            "rssBytes": stats.memory_rss_bytes,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_leaves_loopback_out() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
                    lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n  eth0: 100 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n";
        let expected = Network { received_bytes: 100, received_packets: 2, sent_bytes: 300, sent_packets: 4 };
        assert_eq!(traffic(text), expected);
    }

    #[test]
    fn rates_need_two_readings() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let samples = Samples::default();
        assert_eq!(samples.rate("a", at(10), 1_000_000_000), None);
        assert_eq!(samples.rate("a", at(12), 2_000_000_000), Some(500_000_000));
        assert_eq!(samples.rate("a", at(12), 2_000_000_000), None, "no time has passed");
        samples.keep_only(&[]);
        assert_eq!(samples.rate("a", at(20), 1), None);
    }
}
