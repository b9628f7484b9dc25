//! Listeners, their connection managers, and what routes say to filters.

use super::{Generator, percent};
use policies_xds::cors::{Cors, CorsPolicy};
use policies_xds::fault::fault_abort::ErrorType;
use policies_xds::fault::{FaultAbort, HttpFault};
use policies_xds::hcm::http_connection_manager::{RouteSpecifier, StripPortMode};
use policies_xds::hcm::{HttpConnectionManager, HttpFilter, Rds, http_filter};
use policies_xds::listener::{Filter, FilterChain, Listener, filter};
use policies_xds::matcher::{StringMatcher, string_matcher::MatchPattern};
use policies_xds::protobuf::{Any, BoolValue};
use policies_xds::router::Router;
use policies_xds::{any, core};
use std::collections::HashMap;
use std::net::SocketAddr;
use tests_support::resources::socket;

pub(super) const FAULT: &str = "envoy.filters.http.fault";
const CORS: &str = "envoy.filters.http.cors";

/// A connection manager whose options are chosen by `generator`, on all of `addresses` in turn: one listener for each.
pub fn listener<const N: usize>(
    generator: &mut Generator,
    name: &str,
    addresses: [SocketAddr; N],
) -> [Listener; N] {
    let manager = any(&generator.connection_manager(name));
    addresses.map(|address| {
        let filter = Filter {
            name: "envoy.filters.network.http_connection_manager".into(),
            config_type: Some(filter::ConfigType::TypedConfig(manager.clone())),
        };
        Listener {
            name: name.into(),
            address: Some(socket(address)),
            filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
            ..Default::default()
        }
    })
}

fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

impl Generator {
    fn connection_manager(&mut self, routes: &str) -> HttpConnectionManager {
        let fault = if self.chance(20) { self.fault() } else { HttpFault::default() };
        let router = Router { suppress_envoy_headers: self.chance(15), ..Default::default() };
        let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
        HttpConnectionManager {
            stat_prefix: "test".into(),
            route_specifier: Some(RouteSpecifier::Rds(Rds {
                config_source: Some(core::ConfigSource {
                    config_source_specifier: Some(ads),
                    resource_api_version: core::ApiVersion::V3.into(),
                    ..Default::default()
                }),
                route_config_name: routes.into(),
            })),
            http_filters: vec![
                http_filter(CORS, any(&Cors::default())),
                http_filter(FAULT, any(&fault)),
                http_filter("envoy.filters.http.router", any(&router)),
            ],
            // Identifiers are made by chance.
            generate_request_id: Some(BoolValue { value: false }),
            normalize_path: self.chance(40).then_some(BoolValue { value: true }),
            merge_slashes: self.chance(30),
            path_with_escaped_slashes_action: i32::try_from(self.below(5)).unwrap_or_default(),
            strip_matching_host_port: false,
            strip_port_mode: self.chance(20).then_some(StripPortMode::StripAnyHostPort(true)),
            strip_trailing_host_dot: self.chance(30),
            use_remote_address: self.chance(30).then_some(BoolValue { value: true }),
            xff_num_trusted_hops: u32::from(self.chance(20)),
            skip_xff_append: self.chance(20),
            via: if self.chance(20) { "proxy".into() } else { String::new() },
            server_name: if self.chance(20) { "mesh".into() } else { String::new() },
            server_header_transformation: i32::try_from(self.below(3)).unwrap_or_default(),
            ..Default::default()
        }
    }

    fn fault(&mut self) -> HttpFault {
        let status = [400, 429, 503, 555][self.below(4)];
        HttpFault {
            abort: Some(FaultAbort {
                percentage: Some(percent(if self.chance(85) { 100 } else { 0 })),
                error_type: Some(ErrorType::HttpStatus(status)),
                ..Default::default()
            }),
            headers: if self.chance(70) { vec![self.header_matcher()] } else { Vec::new() },
            upstream_cluster: if self.chance(10) { "one".into() } else { String::new() },
            ..Default::default()
        }
    }

    fn cors(&mut self) -> CorsPolicy {
        let exact = |text: &str| StringMatcher {
            match_pattern: Some(MatchPattern::Exact(text.to_owned())),
            ..Default::default()
        };
        let suffix = StringMatcher {
            match_pattern: Some(MatchPattern::Suffix(".test".into())),
            ignore_case: self.chance(30),
        };
        let text =
            |own: &mut Self, value: &str| if own.chance(60) { value.to_owned() } else { String::new() };
        CorsPolicy {
            allow_origin_string_match: match self.below(3) {
                0 => vec![exact("*")],
                1 => vec![exact("http://a.test")],
                _ => vec![exact("http://b.example"), suffix],
            },
            allow_methods: text(self, "GET,POST"),
            allow_headers: text(self, "x-a,x-b"),
            expose_headers: text(self, "x-multi"),
            max_age: text(self, "60"),
            allow_credentials: self.chance(50).then(|| BoolValue { value: self.chance(70) }),
            forward_not_matching_preflights: self.chance(40).then(|| BoolValue { value: self.chance(50) }),
            ..Default::default()
        }
    }

    /// What a route or a host says about filters, in `chance` of a hundred cases each.
    pub(super) fn filter_configs(&mut self, chance: u32) -> HashMap<String, Any> {
        let mut all = HashMap::new();
        if self.chance(chance) {
            all.insert(CORS.to_owned(), any(&self.cors()));
        }
        if self.chance(chance / 2) {
            all.insert(FAULT.to_owned(), any(&self.fault()));
        }
        all
    }
}
