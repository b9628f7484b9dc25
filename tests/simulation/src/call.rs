//! A request, and what a sidecar decides about it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sidecar_model::hcm::RouteSource;
use sidecar_model::{Action, ClusterChoice, Listener, Route, RouteAction, Snapshot, Terminal};
use sidecar_route::{Found, RequestView, RouteTable, pick_cluster};

/// A plain HTTP request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Port it is sent to.
    pub port: u16,
    /// Host header.
    pub host: &'a str,
    /// Method.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// Other headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Scheme the client used.
    pub scheme: &'a str,
}

/// What was decided.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A route was found.
    Route(Arc<Route>),
    /// The host is known, none of its routes matches: 404.
    NoRoute,
    /// The host is not known: 404.
    NoHost,
    /// The host asks for TLS.
    RedirectToTls,
    /// No listener takes the port: it passes as bytes.
    NoListener,
}

// === impl Call ===

impl<'a> Call<'a> {
    /// A GET of `/` on port 9080.
    #[must_use]
    pub const fn get(host: &'a str, path: &'a str) -> Self {
        Self { port: 9080, host, method: "GET", path, headers: &[], scheme: "http" }
    }

    /// With headers.
    #[must_use]
    pub const fn with(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    /// To another port.
    #[must_use]
    pub const fn on(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// What the sidecar (or gateway) with this snapshot decides, through the listener of every address on the port.
    ///
    /// # Panics
    /// When a listener names a route configuration that is not there.
    #[must_use]
    pub fn decide(&self, snapshot: &Snapshot) -> Answer {
        let Some(listener) = snapshot.listeners.get(format!("0.0.0.0_{}", self.port).as_str()) else {
            return Answer::NoListener;
        };
        let Some(table) = table(snapshot, listener) else { return Answer::NoListener };
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().unwrap_or_else(|_| panic!("header {name}"));
            headers.append(
                name,
                HeaderValue::from_str(value).unwrap_or_else(|_| panic!("header value {value}")),
            );
        }
        let view = RequestView {
            method: self.method,
            authority: self.host,
            path: self.path,
            scheme: self.scheme,
            headers: &headers,
            metadata: None,
        };
        match table.find(&view, 0) {
            Found::Route(host, _) | Found::NoRoute(host)
                if host.require_tls != sidecar_model::route::TlsRequirement::None =>
            {
                Answer::RedirectToTls
            }
            Found::Route(_, route) => Answer::Route(Arc::clone(route)),
            Found::NoRoute(_) => Answer::NoRoute,
            Found::NoHost => Answer::NoHost,
        }
    }
}

/// The routes of the chain that takes plain HTTP.
fn table(snapshot: &Snapshot, listener: &Listener) -> Option<RouteTable> {
    let http = listener.filter_chains.iter().find_map(|chain| match &chain.terminal {
        Terminal::Http(manager) => Some(manager),
        Terminal::Tcp(_) => None,
    })?;
    let config = match &http.route {
        RouteSource::Inline(config) => Arc::clone(config),
        RouteSource::Rds(name) => {
            Arc::clone(snapshot.routes.get(name).unwrap_or_else(|| panic!("no routes {name}")))
        }
    };
    Some(RouteTable::new(config))
}

// === impl Answer ===

impl Answer {
    /// The route.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn route(&self) -> &Route {
        match self {
            Self::Route(route) => route,
            other => panic!("no route: {other:?}"),
        }
    }

    /// The forwarding action.
    ///
    /// # Panics
    /// When the request is not forwarded.
    #[must_use]
    pub fn forward(&self) -> &RouteAction {
        match &self.route().action {
            Action::Forward(action) => action,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    /// The status of a direct response or of a missing route.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::NoRoute | Self::NoHost => Some(404),
            Self::RedirectToTls => Some(301),
            Self::NoListener => None,
            Self::Route(route) => match &route.action {
                Action::DirectResponse(response) => Some(response.status.as_u16()),
                Action::Redirect(redirect) => Some(redirect.status.as_u16()),
                Action::Forward(_) | Action::NonForwarding => None,
            },
        }
    }

    /// Clusters with their share in percent.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<String, u32> {
        match &self.forward().cluster {
            ClusterChoice::Single(name) => BTreeMap::from([(name.to_string(), 100)]),
            ClusterChoice::Weighted(weighted) => weighted
                .clusters
                .iter()
                .map(|it| {
                    (
                        it.name.to_string(),
                        u32::try_from(u64::from(it.weight) * 100 / weighted.total).unwrap_or(0),
                    )
                })
                .collect(),
            ClusterChoice::Header(name) => BTreeMap::from([(format!("by header {name}"), 100)]),
        }
    }

    /// How often each cluster is really picked, by numbers that look random and are the same in every run.
    #[must_use]
    pub fn picked(&self, picks: u64) -> BTreeMap<String, u64> {
        let headers = HeaderMap::new();
        let view = RequestView {
            method: "GET",
            authority: "",
            path: "/",
            scheme: "http",
            headers: &headers,
            metadata: None,
        };
        let mut counts = BTreeMap::new();
        for index in 1..=picks {
            // SplitMix64.
            let mut random = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            random ^= random >> 31;
            let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
            if let Some(pick) = pick_cluster(self.forward(), &view, client, random, random) {
                *counts.entry(pick.name.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}
