//! What `/metrics` shows.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::request::RequestInfo;

/// The labels of a finished request. Resources that are not served are counted under "".
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    group: String,
    resource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verb {
    verb: &'static str,
}

/// The server's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Family<Verb, Histogram, fn() -> Histogram>,
    watches: Gauge,
}

/// A watch that is counted while it lives.
#[derive(Debug)]
pub(crate) struct OpenWatch(Gauge);

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let buckets =
            || Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]);
        let (requests, watches) = (Family::default(), Gauge::default());
        let durations = Family::new_with_constructor(buckets as fn() -> Histogram);
        let mut registry = Registry::with_prefix("apiserver");
        registry.register("request", "Finished requests", requests.clone());
        registry.register("request_duration_seconds", "Time until the answer began", durations.clone());
        registry.register("watches", "Open watches", watches.clone());
        Self { registry, requests, durations, watches }
    }
}

impl Metrics {
    /// Counts a finished request; `served` says whether its resource exists.
    pub(crate) fn finished(&self, info: &RequestInfo, served: bool, code: u16, took: Duration) {
        let known = |text: &str| if served { text.to_owned() } else { String::new() };
        let labels =
            Labels { verb: info.verb, group: known(&info.group), resource: known(&info.resource), code };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&Verb { verb: info.verb }).observe(took.as_secs_f64());
    }

    pub(crate) fn open_watch(&self) -> OpenWatch {
        self.watches.inc();
        OpenWatch(self.watches.clone())
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}
