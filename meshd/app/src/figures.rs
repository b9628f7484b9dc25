//! Figures of the whole control plane for port 15014, under the names that Istio's dashboards query: its build, what it knows,
//! what it was asked to admit, what set off pushes, and how the process does.

use meshd_model::{Change, ChangeKind};
use meshd_webhook::review::Answer;
use meshd_xds::{Publisher, Tracker};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::{Registry, Unit},
};
use std::fmt;

/// Counters whose names end in `_total` in OpenMetrics, but not in Istio's exposition.
const WITHOUT_SUFFIX: [&str; 5] = [
    "pilot_xds_pushes",
    "pilot_total_xds_rejects",
    "pilot_push_triggers",
    "galley_validation_passed",
    "galley_validation_failed",
];

/// Clock ticks a second in `/proc/<pid>/stat`, the same on every Linux.
const TICKS: f64 = 100.0;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Trigger {
    r#type: &'static str,
}

/// Counters that the control plane's parts raise. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    triggers: Family<Trigger, Counter>,
    injected: Counter,
    not_injected: Counter,
    passed: Counter,
    refused: Counter,
}

/// What is looked up at each scrape.
#[derive(Debug)]
struct Live {
    publisher: Publisher,
    tracker: Tracker,
}

// === impl Figures ===

impl Figures {
    /// Registers everything, also what is looked up at each scrape.
    pub(crate) fn register(registry: &mut Registry, publisher: Publisher, tracker: Tracker) -> Self {
        let figures = Self::default();
        let all = [
            ("sidecar_injection_success", "Pods that were given a sidecar or wanted none", &figures.injected),
            ("sidecar_injection_failure", "Pods that could not be given a sidecar", &figures.not_injected),
            ("galley_validation_passed", "Policy objects found valid", &figures.passed),
            ("galley_validation_failed", "Policy objects refused", &figures.refused),
        ];
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
        registry.register("pilot_push_triggers", "Publications by what changed", figures.triggers.clone());
        registry.register_collector(Box::new(Live { publisher, tracker }));
        figures
    }

    /// A snapshot was published.
    pub(crate) fn published(&self, change: &Change) {
        let mut types: Vec<_> = change.keys.iter().map(|key| trigger(key.kind)).collect();
        types.extend(change.everything.then_some("global"));
        types.sort_unstable();
        types.dedup();
        for r#type in types {
            self.triggers.get_or_create(&Trigger { r#type }).inc();
        }
    }

    /// The question whether a pod gets a sidecar was answered.
    pub(crate) fn injection(&self, answer: &Answer) {
        if denies(answer) {
            self.not_injected.inc()
        } else {
            self.injected.inc()
        };
    }

    /// The question whether a policy object is valid was answered.
    pub(crate) fn validation(&self, answer: &Answer) {
        if denies(answer) {
            self.refused.inc()
        } else {
            self.passed.inc()
        };
    }
}

/// The text of `/metrics`, in the classic format, which allows counters to have Istio's names.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = base_runtime::metrics::encode(registry);
    for name in WITHOUT_SUFFIX {
        for end in ['{', ' '] {
            text = text.replace(&format!("\n{name}_total{end}"), &format!("\n{name}{end}"));
        }
    }
    text
}

fn denies(answer: &Answer) -> bool {
    matches!(answer, Answer::Deny { .. })
}

/// Istio's word for what set off a push.
fn trigger(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Policy(_) => "config",
        ChangeKind::Service => "service",
        ChangeKind::Endpoints => "endpoint",
        ChangeKind::Workload => "workload",
        ChangeKind::Namespace => "namespace",
        ChangeKind::Secret => "secret",
        ChangeKind::MeshConfig => "mesh",
    }
}

// === impl Live ===

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let build = [("component", "pilot"), ("tag", env!("CARGO_PKG_VERSION"))];
        let mut metric =
            encoder.encode_descriptor("istio_build", "Component and version", None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(metric.encode_family(&build)?)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut metric = encoder.encode_descriptor(
            "pilot_info",
            "Pilot version and build information",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(metric.encode_family(&version)?)?;
        let (services, version) = self
            .publisher
            .current()
            .map_or((0, 0), |p| (p.snapshot.registry.all().len() as u64, p.snapshot.version));
        let proxies = self.tracker.all();
        let behind = proxies.iter().filter(|p| p.version < version).count() as u64;
        let rejecting = proxies.iter().filter(|p| !p.rejected.is_empty()).count() as u64;
        let gauges = [
            ("pilot_services", "Services known", services),
            ("meshd_snapshot_version", "Version of the published snapshot", version),
            ("meshd_proxies_behind", "Proxies that have not acknowledged the published snapshot", behind),
            ("meshd_proxies_rejecting", "Proxies that refuse a part of their configuration", rejecting),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, None, value as f64)?;
        }
        process(&mut encoder)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

/// The figures that every client library gives of its process. What `/proc` does not tell is left out.
fn process(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
    let (stat, status, system) = (read("self/stat"), read("self/status"), read("stat"));
    if let Some((cpu, started)) = times(&stat) {
        ConstCounter::new(cpu).encode(encoder.encode_descriptor(
            "process_cpu",
            "Processor time used",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?)?;
        let boot = field(&system, "btime").unwrap_or_default();
        gauge(encoder, "process_start_time", "Start since the epoch", Some(&Unit::Seconds), boot + started)?;
    }
    for (name, help, key) in [
        ("process_resident_memory", "Resident memory", "VmRSS:"),
        ("process_virtual_memory", "Virtual memory", "VmSize:"),
    ] {
        if let Some(kib) = field(&status, key) {
            gauge(encoder, name, help, Some(&Unit::Bytes), kib * 1024.0)?;
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(encoder, "process_open_fds", "Open files", None, files.count() as f64)?;
    }
    Ok(())
}

/// Processor seconds used, and seconds from boot to the start, from `/proc/self/stat`.
fn times(stat: &str) -> Option<(f64, f64)> {
    // The name, in parentheses, may hold anything; the rest begins with field 3.
    let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| rest.get(field - 3)?.parse::<f64>().ok();
    Some(((ticks(14)? + ticks(15)?) / TICKS, ticks(22)? / TICKS))
}

/// The number behind a key at the start of a line.
fn field(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_istios_and_figures_count() {
        let mut registry = Registry::default();
        let figures = Figures::register(&mut registry, Publisher::default(), Tracker::default());
        figures.validation(&Answer::Allow(Vec::new()));
        figures.validation(&Answer::Deny { code: 400, message: String::new() });
        figures.validation(&Answer::Deny { code: 400, message: String::new() });
        figures.injection(&Answer::Allow(Vec::new()));
        figures.published(&Change::everything());
        let text = text(&registry);
        for line in [
            "galley_validation_passed 1",
            "galley_validation_failed 2",
            "sidecar_injection_success_total 1",
            "pilot_push_triggers{type=\"global\"} 1",
            "pilot_services 0.0",
            "meshd_proxies_behind 0.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("istio_build{component=\"pilot\",tag=\""));
        assert!(text.contains("pilot_info{version=\""));
        for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|v| v >= 0.0), "{name} is missing in\n{text}");
        }
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let rest = (3..=22).map(|n| format!(" {}", n * 100)).collect::<String>();
        assert_eq!(times(&format!("7 (a) b (c){rest}")), Some((29.0, 22.0)));
        assert_eq!(times("7 (short) S 1"), None);
    }
}
