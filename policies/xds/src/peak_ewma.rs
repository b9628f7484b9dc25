//! `envoy.extensions.load_balancing_policies.peak_ewma.v3alpha`, which `envoy-types` lacks, declared by hand.

use crate::protobuf::{Duration, UInt32Value};

/// Chooses the cheaper of two endpoints by a moving average of response times that heeds peaks. The average is one for the whole
/// process here, so that the fields about gathering samples mean nothing.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PeakEwma {
    /// In this time an observation loses all but 1/e of its weight; 10 s by default.
    #[prost(message, optional, tag = "1")]
    pub decay_time: Option<Duration>,
    /// How often samples are gathered.
    #[prost(message, optional, tag = "2")]
    pub aggregation_interval: Option<Duration>,
    /// Samples kept for an endpoint.
    #[prost(message, optional, tag = "3")]
    pub max_samples_per_host: Option<UInt32Value>,
    /// What an endpoint without observations is taken to need; 10 ms by default.
    #[prost(message, optional, tag = "4")]
    pub default_rtt: Option<Duration>,
}

impl prost::Name for PeakEwma {
    const NAME: &'static str = "PeakEwma";
    const PACKAGE: &'static str = "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha";

    fn full_name() -> String {
        format!("{}.{}", Self::PACKAGE, Self::NAME)
    }

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}
