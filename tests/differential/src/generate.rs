//! Route configurations and requests by chance: small worlds of hosts, paths and headers, so that conditions hold often.

mod actions;
mod filters;
mod headers;
mod matches;
mod requests;

pub use filters::listener;
pub use requests::request;

use policies_xds::any;
use policies_xds::core::RuntimeFractionalPercent;
use policies_xds::core::{DataSource, data_source::Specifier};
use policies_xds::fault::HttpFault;
use policies_xds::protobuf::{BoolValue, Duration, UInt32Value};
use policies_xds::route::DirectResponseAction;
use policies_xds::route::{
    Route, RouteConfiguration, RouteMatch, VirtualHost, route, route_match::PathSpecifier,
};
use policies_xds::types::{FractionalPercent, fractional_percent::DenominatorType};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// Host by which the test asks which configuration is in force.
pub const GENERATION_HOST: &str = "generation.test";

/// Clusters that exist, beside one that does not and one that nobody serves.
pub const CLUSTERS: [&str; 4] = ["one", "two", "ring", "maglev"];

const EXACT: [&str; 9] = [
    "a.test",
    "b.test",
    "www.a.test",
    "x.www.a.test",
    "a.other",
    "deep.b.test",
    "a.test:8080",
    "A.Other.Test",
    "b-x.test",
];
const WILD: [&str; 8] =
    ["*.a.test", "*.test", "*-x.test", "a.*", "www.*", "www.a.*", "*.other", "*.b.test:8080"];

/// A source of configurations; the same seed gives the same ones.
#[derive(Debug)]
pub struct Generator {
    random: StdRng,
}

impl Generator {
    /// A generator for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    /// True in `percent` of a hundred cases.
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all.choose(&mut self.random).expect("there is something to choose from")
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    /// `0..=max` things.
    fn some<T>(&mut self, max: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(max + 1);
        (0..count).map(|_| one(self)).collect()
    }

    /// A route configuration; `generation` is what [`GENERATION_HOST`] answers.
    pub fn route_configuration(&mut self, name: &str, generation: &str) -> RouteConfiguration {
        let mut free: BTreeSet<&str> = EXACT.iter().chain(&WILD).copied().chain(["*"]).collect();
        let count = 1 + self.below(4);
        let mut virtual_hosts = Vec::new();
        for index in 0..count {
            let mut domains = Vec::new();
            for _ in 0..=self.below(3) {
                let left: Vec<&str> = free.iter().copied().collect();
                let Some(domain) = left.choose(&mut self.random) else { break };
                free.remove(domain);
                domains.push((*domain).to_owned());
            }
            if index == 0 && free.remove("*") {
                domains.push("*".to_owned());
            }
            if !domains.is_empty() {
                virtual_hosts.push(self.virtual_host(&format!("host-{index}"), domains));
            }
        }
        virtual_hosts.push(generation_host(generation));
        RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts,
            request_headers_to_add: self.some(2, Self::request_header),
            request_headers_to_remove: self.removed(10),
            response_headers_to_add: self.some(2, Self::response_header),
            response_headers_to_remove: self.removed(10),
            most_specific_header_mutations_wins: self.chance(30),
            ignore_port_in_host_matching: self.chance(25),
            validate_clusters: Some(BoolValue { value: false }),
            ..Default::default()
        }
    }

    fn virtual_host(&mut self, name: &str, domains: Vec<String>) -> VirtualHost {
        VirtualHost {
            name: name.to_owned(),
            domains,
            routes: (0..1 + self.below(5)).map(|_| self.route()).collect(),
            request_headers_to_add: self.some(2, Self::request_header),
            request_headers_to_remove: self.removed(10),
            response_headers_to_add: self.some(2, Self::response_header),
            response_headers_to_remove: self.removed(10),
            retry_policy: if self.chance(15) { Some(self.retry_policy()) } else { None },
            include_request_attempt_count: self.chance(50),
            include_attempt_count_in_response: self.chance(30),
            require_tls: if self.chance(5) { 1 + i32::from(self.chance(50)) } else { 0 },
            typed_per_filter_config: self.filter_configs(10),
            ..Default::default()
        }
    }

    fn route(&mut self) -> Route {
        let r#match = self.route_match();
        let action = self.action(&r#match);
        Route {
            name: format!("route-{}", self.below(1000)),
            r#match: Some(r#match),
            action: Some(action),
            request_headers_to_add: self.some(2, Self::request_header),
            request_headers_to_remove: self.removed(15),
            response_headers_to_add: self.some(2, Self::response_header),
            response_headers_to_remove: self.removed(15),
            typed_per_filter_config: self.filter_configs(20),
            ..Default::default()
        }
    }
}

fn generation_host(generation: &str) -> VirtualHost {
    let body = Specifier::InlineString(generation.to_owned());
    VirtualHost {
        name: "generation".into(),
        domains: vec![GENERATION_HOST.to_owned()],
        routes: vec![Route {
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".into())),
                ..Default::default()
            }),
            action: Some(route::Action::DirectResponse(DirectResponseAction {
                status: 200,
                body: Some(DataSource { specifier: Some(body), ..Default::default() }),
                ..Default::default()
            })),
            ..Default::default()
        }],
        // Whatever the listener's fault filter does, it does not do it here.
        typed_per_filter_config: [(filters::FAULT.to_owned(), any(&HttpFault::default()))].into(),
        ..Default::default()
    }
}

fn percent(numerator: u32) -> FractionalPercent {
    FractionalPercent { numerator, denominator: DenominatorType::Hundred.into() }
}

fn runtime(numerator: u32) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(percent(numerator)), ..Default::default() }
}

fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}
