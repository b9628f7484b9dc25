//! Prometheus text: the kubelet's own figures, and containers' in the names cAdvisor and metrics-server use.

use std::fmt::Write;

use super::stats::{PodUsage, look};
use crate::node::Node;
use crate::pod;
use crate::state::Life;

/// Picks one counter of a pod's link.
type Counter = fn(&PodUsage) -> u64;

/// One family of figures being written.
struct Text {
    out: String,
}

/// The body of `/metrics`.
pub(super) fn own(node: &Node) -> String {
    let pods = node.pods.all();
    let mut states = [("running", 0_u64), ("exited", 0), ("waiting", 0)];
    let mut running_pods = 0_u64;
    let mut restarts = 0_u64;
    for entry in &pods {
        let mut alive = false;
        for (_, container) in pod::containers(&entry.pod) {
            let seen = entry.state.container(&container.name);
            restarts += u64::from(seen.attempt);
            let index = match seen.life {
                Life::Running(_) | Life::Stopping(_) => 0,
                Life::Exited(_) => 1,
                Life::Waiting | Life::Starting => 2,
            };
            alive |= index == 0;
            states[index].1 += 1;
        }
        running_pods += u64::from(alive);
    }
    let mut text = Text::new();
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    text.sample("kubelet_node_name", &[("node", &node.name)], 1);
    text.family("kubelet_running_pods", "gauge", "Number of pods that have a running container");
    text.sample("kubelet_running_pods", &[], running_pods);
    text.family("kubelet_running_containers", "gauge", "Number of containers by state");
    for (state, count) in states {
        text.sample("kubelet_running_containers", &[("container_state", state)], count);
    }
    text.family("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run");
    text.sample("kubelet_desired_pods", &[], pods.len());
    text.family("kubelet_container_restarts", "gauge", "Restarts of the containers that are there");
    text.sample("kubelet_container_restarts", &[], restarts);
    text.out
}

/// The body of `/metrics/cadvisor`.
pub(super) async fn cadvisor(node: &Node) -> String {
    let pods = look(node).await;
    let mut text = Text::new();
    text.containers(
        &pods,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        |one| seconds(one.stats.cpu_usage_ns),
    );
    text.containers(
        &pods,
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, page cache included.",
        |one| one.stats.memory_usage_bytes.to_string(),
    );
    text.containers(
        &pods,
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set in bytes.",
        |one| one.stats.memory_working_set_bytes.to_string(),
    );
    text.containers(&pods, "container_memory_rss", "gauge", "Size of RSS in bytes.", |one| {
        one.stats.memory_rss_bytes.to_string()
    });
    text.containers(
        &pods,
        "container_processes",
        "gauge",
        "Number of processes running inside the container.",
        |one| one.stats.pids.to_string(),
    );
    text.containers(
        &pods,
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds.",
        |one| one.started_at.as_second().to_string(),
    );
    text.containers(
        &pods,
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes the container's log takes on this filesystem.",
        |one| one.logs_bytes.to_string(),
    );
    text.links(&pods);
    text.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    text.sample("machine_cpu_cores", &[], std::thread::available_parallelism().map_or(1, usize::from));
    text.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    text.sample("machine_memory_bytes", &[], node.memory_bytes);
    text.out
}

/// The body of `/metrics/resource`.
pub(super) async fn resource(node: &Node) -> String {
    let pods = look(node).await;
    let mut text = Text::new();
    let total =
        pods.iter().fold(cluster_containers::Stats::default(), |sum, one| super::stats::add(sum, one.total));
    text.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    text.sample("node_cpu_usage_seconds_total", &[], seconds(total.cpu_usage_ns));
    text.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    text.sample("node_memory_working_set_bytes", &[], total.memory_working_set_bytes);
    text.containers(
        &pods,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in core-seconds",
        |one| seconds(one.stats.cpu_usage_ns),
    );
    text.containers(
        &pods,
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set in bytes",
        |one| one.stats.memory_working_set_bytes.to_string(),
    );
    text.containers(
        &pods,
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        |one| one.started_at.as_second().to_string(),
    );
    for (name, kind) in
        [("pod_cpu_usage_seconds_total", "counter"), ("pod_memory_working_set_bytes", "gauge")]
    {
        text.family(name, kind, "Usage of the pod as a whole");
        for one in &pods {
            let (namespace, pod) = (pod::namespace(&one.entry.pod), pod::name(&one.entry.pod));
            let value = match kind {
                "counter" => seconds(one.total.cpu_usage_ns),
                _ => one.total.memory_working_set_bytes.to_string(),
            };
            text.sample(name, &[("namespace", namespace), ("pod", pod)], value);
        }
    }
    text.out
}

fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

// === impl Text ===

impl Text {
    fn new() -> Self {
        Self { out: String::new() }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let _written = if labels.is_empty() {
            writeln!(self.out, "{name} {value}")
        } else {
            writeln!(self.out, "{name}{{{}}} {value}", labels.join(","))
        };
    }

    fn links(&mut self, pods: &[PodUsage]) {
        let links: [(&str, &str, Counter); 4] = [
            ("container_network_receive_bytes_total", "Cumulative count of bytes received", |pod| {
                pod.network.received_bytes
            }),
            ("container_network_receive_packets_total", "Cumulative count of packets received", |pod| {
                pod.network.received_packets
            }),
            ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |pod| {
                pod.network.sent_bytes
            }),
            ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |pod| {
                pod.network.sent_packets
            }),
        ];
        for (name, help, value) in links {
            self.family(name, "counter", help);
            for one in pods {
                let (namespace, pod) = (pod::namespace(&one.entry.pod), pod::name(&one.entry.pod));
                self.sample(
                    name,
                    &[("interface", "eth0"), ("namespace", namespace), ("pod", pod)],
                    value(one),
                );
            }
        }
    }

    fn containers(
        &mut self,
        pods: &[PodUsage],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&super::stats::ContainerUsage) -> String,
    ) {
        self.family(name, kind, help);
        for pod in pods {
            for one in &pod.containers {
                let labels = [
                    ("container", one.name.as_str()),
                    ("id", one.id.as_str()),
                    ("image", one.image.as_str()),
                    ("name", one.id.as_str()),
                    ("namespace", pod::namespace(&pod.entry.pod)),
                    ("pod", pod::name(&pod.entry.pod)),
                ];
                self.sample(name, &labels, value(one));
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let mut text = Text::new();
        text.family("x_total", "counter", "Help.");
        text.sample("x_total", &[("a", "b\"c\\"), ("d", "e\nf")], seconds(1_500_000_000));
        text.sample("x_total", &[], 2);
        assert_eq!(
            text.out,
            "# HELP x_total Help.\n# TYPE x_total counter\nx_total{a=\"b\\\"c\\\\\",d=\"e\\nf\"} 1.500000000\nx_total 2\n"
        );
    }
}
