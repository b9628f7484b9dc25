//! The control plane's metrics, under the names that Istio's dashboards query.

use crate::tracker::type_name;
use meshd_compile::ResourceType;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The type of resource a figure is about, as `cds`, `eds`, `lds`, `rds`, `sds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    /// Lower-case short name.
    pub r#type: String,
}

/// Counters and histograms of the ADS server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connected proxies.
    pub connected: Gauge,
    /// Responses sent.
    pub pushes: Family<TypeLabel, Counter>,
    /// Responses refused.
    pub rejects: Family<TypeLabel, Counter>,
    /// Seconds to compile for one proxy.
    pub push_time: Histogram,
    /// Bytes of a response's resources.
    pub config_size: Family<TypeLabel, Histogram, fn() -> Histogram>,
    /// Seconds from a publication until a proxy has it in force.
    pub convergence: Histogram,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connected: Gauge::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            push_time: Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            config_size: Family::new_with_constructor(sizes),
            convergence: Histogram::new([
                0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 30.0,
            ]),
        };
        // A refusal must show as a step from 0, not as a series that begins with 1.
        for kind in [
            ResourceType::Cluster,
            ResourceType::Endpoint,
            ResourceType::Listener,
            ResourceType::Route,
            ResourceType::Secret,
        ] {
            drop(metrics.rejects.get_or_create(&Self::label(kind)));
        }
        registry.register(
            "pilot_xds",
            "Number of endpoints connected to this pilot using XDS",
            metrics.connected.clone(),
        );
        registry.register(
            "pilot_xds_pushes",
            "Pilot build and send responses by type",
            metrics.pushes.clone(),
        );
        registry.register(
            "pilot_total_xds_rejects",
            "Total number of XDS responses from pilot rejected by proxy",
            metrics.rejects.clone(),
        );
        registry.register(
            "pilot_xds_push_time",
            "Total time in seconds Pilot takes to push",
            metrics.push_time.clone(),
        );
        registry.register(
            "pilot_xds_config_size_bytes",
            "Distribution of configuration sizes pushed to clients",
            metrics.config_size.clone(),
        );
        registry.register(
            "pilot_proxy_convergence_time",
            "Delay in seconds between config change and a proxy receiving all required configuration",
            metrics.convergence.clone(),
        );
        metrics
    }

    /// The label of a type.
    #[must_use]
    pub fn label(kind: ResourceType) -> TypeLabel {
        TypeLabel { r#type: type_name(kind).to_ascii_lowercase() }
    }
}

fn sizes() -> Histogram {
    Histogram::new([1.0, 10_000.0, 100_000.0, 1_000_000.0, 4_000_000.0, 10_000_000.0, 40_000_000.0])
}
