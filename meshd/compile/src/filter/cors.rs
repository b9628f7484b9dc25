//! Cross-origin policy.

use policies_api::virtual_service::CorsPolicy as Written;
use policies_xds::core::RuntimeFractionalPercent;
use policies_xds::cors::{Cors, CorsPolicy};
use policies_xds::hcm::HttpFilter;
use policies_xds::matcher::string_matcher::MatchPattern;
use policies_xds::{any, protobuf::Any};

use crate::proto::{flag, fraction, string_match, string_matcher};

/// Name of the filter.
pub(crate) const FILTER: &str = "envoy.filters.http.cors";

pub(crate) fn filter() -> HttpFilter {
    super::http(FILTER, any(&Cors {}))
}

/// The policy of a rule.
pub(crate) fn per_route(written: &Written) -> Any {
    let exact = written.allow_origin.iter().map(|it| string_matcher(MatchPattern::Exact(it.clone())));
    any(&CorsPolicy {
        allow_origin_string_match: exact
            .chain(written.allow_origins.iter().filter_map(string_match))
            .collect(),
        allow_methods: written.allow_methods.join(","),
        allow_headers: written.allow_headers.join(","),
        expose_headers: written.expose_headers.join(","),
        max_age: written.max_age.map(|it| it.0.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: written.allow_credentials.and_then(flag),
        forward_not_matching_preflights: flag(written.unmatched_preflights != "IGNORE"),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(fraction(policies_api::matching::Percent { value: 100.0 })),
            ..Default::default()
        }),
        ..Default::default()
    })
}
