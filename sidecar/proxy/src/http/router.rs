//! From a prepared request to its answer: route, filters, action.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use sidecar_http::{Body, Reply, Upgraded};
use sidecar_model::hcm::RouteSource;
use sidecar_model::route::TlsRequirement;
use sidecar_model::{Action, ClusterChoice, Metadata, Route, RouteConfig, VirtualHost, WeightedCluster};
use sidecar_route::{Found, RequestView, RouteTable, location, pick_cluster, tls_location};

use super::Connection;
use super::attempt::{self, Forwarding};
use super::failure::Failure;
use super::record::Record;
use super::respond::{self, Shape};
use super::stream::Clocks;
use super::{filters, prepare, reply, trace};
use crate::config::{Config, HcmPlan};

/// The route of a request, and the cluster it fell on.
pub(super) struct Chosen {
    pub(super) host: Arc<VirtualHost>,
    pub(super) route: Arc<Route>,
    pub(super) table: Arc<RouteTable>,
    weighted: Option<usize>,
    pub(super) cluster: Option<Arc<str>>,
    /// Becomes the value of a cookie that the hash policy makes.
    pub(super) seed: Option<u64>,
}

impl Chosen {
    /// The weighted entry that chance fell on.
    pub(super) fn weighted(&self) -> Option<&WeightedCluster> {
        let Action::Forward(action) = &self.route.action else { return None };
        let ClusterChoice::Weighted(weighted) = &action.cluster else { return None };
        weighted.clusters.get(self.weighted?)
    }

    /// What endpoints must carry under `envoy.lb`: the weighted entry's word goes before the route's.
    pub(super) fn endpoint_metadata(&self) -> [Option<&Metadata>; 2] {
        let Action::Forward(action) = &self.route.action else { return [None, None] };
        let of_route = Some(&action.metadata_match).filter(|metadata| !metadata.is_empty());
        let of_entry = self.weighted().map(|entry| &entry.metadata_match);
        [of_entry.filter(|metadata| !metadata.is_empty()), of_route]
    }

    pub(super) fn cluster_name(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    pub(super) fn config(&self) -> &RouteConfig {
        self.table.config()
    }
}

/// What is answered.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// The upstream's end of an upgraded connection.
    pub(super) upgraded: Option<Upgraded>,
    /// What bounds the rest of the stream.
    pub(super) clocks: Option<Clocks>,
    /// It is the connection's last answer.
    pub(super) close: bool,
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self { response, upgraded: None, clocks: None, close: false }
    }
}

impl Answer {
    /// The answer as the connection writes it; `record` hears how that ends.
    pub(super) fn into_reply(self, mut record: Box<Record>) -> Reply {
        record.capture_response(self.response.status().as_u16(), self.response.headers());
        let close = self.close;
        match self.upgraded {
            None => {
                let response = match self.clocks {
                    Some(clocks) => self.response.map(|body| clocks.bound(body)),
                    None => self.response,
                };
                Reply { response, finish: Some(record), close, ..Reply::default() }
            }
            Some(upstream) => {
                let (idle, left) = self.clocks.map_or((None, None), |clocks| (clocks.idle(), clocks.left()));
                let upgrade = respond::tunnel(upstream, record, idle.unwrap_or_default(), left);
                Reply { response: self.response, upgrade: Some(upgrade), close, ..Reply::default() }
            }
        }
    }
}

/// A request as routing sees it.
pub(super) fn view<'a>(parts: &'a Parts, record: &'a Record) -> RequestView<'a> {
    let host = parts.headers.get(header::HOST).map_or("", |host| host.to_str().unwrap_or_default());
    RequestView {
        method: parts.method.as_str(),
        authority: host,
        path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
        scheme: record.scheme,
        headers: &parts.headers,
        metadata: record.metadata.as_ref(),
    }
}

/// Answers a request.
pub(super) async fn run(
    connection: &Connection,
    config: &Config,
    plan: &HcmPlan,
    clocks: Option<&Clocks>,
    mut parts: Parts,
    mut body: Body,
    record: &mut Record,
) -> Answer {
    let shape = Shape { connection, plan };
    if let Err(response) = prepare::prepare(connection, &plan.hcm, &mut parts, record) {
        record.capture_request(&parts.uri, &parts.headers);
        return shape.local(response, record, None).into();
    }
    record.trace = trace::begin(connection, plan, &mut parts, record);
    let mut chosen = choose(connection, config, plan, &parts, record);
    if let Some(chosen) = &chosen {
        record.route = Some((Arc::clone(&chosen.host), Arc::clone(&chosen.route)));
        if let Some(response) = to_tls(chosen, &parts, record) {
            record.capture_request(&parts.uri, &parts.headers);
            return shape.local(response, record, None).into();
        }
    }
    let filtered =
        filters::run(connection, config, plan, chosen.as_ref(), &mut parts, &mut body, record).await;
    let afterwards = match filtered {
        Ok(afterwards) => afterwards,
        Err(response) => {
            record.capture_request(&parts.uri, &parts.headers);
            return shape.local(response, record, None).into();
        }
    };
    if afterwards.reroute {
        // Claims, or what a service made of the request, may decide the route.
        chosen = choose(connection, config, plan, &parts, record);
        if let Some(chosen) = &chosen {
            record.route = Some((Arc::clone(&chosen.host), Arc::clone(&chosen.route)));
        }
    }
    let Some(chosen) = chosen else {
        record.capture_request(&parts.uri, &parts.headers);
        let response = reply::failed(&Failure::NoRoute, record);
        return shape.local(response, record, Some(&afterwards)).into();
    };
    match &chosen.route.action {
        Action::Forward(action) => {
            let body = match afterwards.grpc_web {
                Some(call) => call.request(body),
                None => body,
            };
            let forwarding = Forwarding {
                connection,
                config,
                plan,
                clocks,
                chosen: &chosen,
                action,
                afterwards: &afterwards,
            };
            attempt::forward(&forwarding, parts, body, record).await
        }
        action => {
            let response = answer(action, &chosen, &parts, record);
            record.capture_request(&parts.uri, &parts.headers);
            let response = shape.routed(response, &chosen, &parts.headers, record);
            shape.local(response, record, Some(&afterwards)).into()
        }
    }
}

fn choose(
    connection: &Connection,
    config: &Config,
    plan: &HcmPlan,
    parts: &Parts,
    record: &Record,
) -> Option<Chosen> {
    let table = match (&plan.inline_routes, &plan.hcm.route) {
        (Some(table), _) => table,
        (None, RouteSource::Rds(name)) => config.routes.get(name)?,
        (None, RouteSource::Inline(_)) => return None,
    };
    let mut view = view(parts, record);
    if plan.hcm.strip_trailing_host_dot {
        view.authority = view.authority.strip_suffix('.').unwrap_or(view.authority);
    }
    if plan.hcm.strip_port_from_host
        && let Some((name, port)) = view.authority.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        view.authority = name;
    }
    let random = connection.down.worker.random();
    let Found::Route(host, route) = table.find(&view, random) else { return None };
    let mut chosen = Chosen {
        host: Arc::clone(host),
        route: Arc::clone(route),
        table: Arc::clone(table),
        weighted: None,
        cluster: None,
        seed: None,
    };
    if let Action::Forward(action) = &route.action {
        let worker = &connection.down.worker;
        chosen.seed = (!action.hash_policy.is_empty()).then(|| worker.random());
        let (client, seed) = (record.remote.ip(), chosen.seed.unwrap_or_default());
        let random = if matches!(action.cluster, ClusterChoice::Weighted(_)) { worker.random() } else { 0 };
        let Some(pick) = pick_cluster(action, &view, client, random, seed) else { return Some(chosen) };
        chosen.cluster = Some(pick.shared.map_or_else(|| pick.name.into(), Arc::clone));
        if let (Some(entry), ClusterChoice::Weighted(all)) = (pick.weighted, &action.cluster) {
            chosen.weighted = all.clusters.iter().position(|one| std::ptr::eq(one, entry));
        }
    }
    Some(chosen)
}

/// A redirect of plain text to HTTPS, when the host asks for it.
fn to_tls(chosen: &Chosen, parts: &Parts, record: &mut Record) -> Option<Response<Body>> {
    if chosen.host.require_tls == TlsRequirement::None || record.scheme == "https" {
        return None;
    }
    let location = tls_location(&view(parts, record));
    record.details = "tls_redirect".into();
    Some(redirect(StatusCode::MOVED_PERMANENTLY, location))
}

fn redirect(status: StatusCode, location: String) -> Response<Body> {
    let mut response = reply::text(status, "");
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// The answer of a route that does not forward.
fn answer(action: &Action, chosen: &Chosen, parts: &Parts, record: &mut Record) -> Response<Body> {
    match action {
        Action::Redirect(to) => {
            record.details = "direct_response".into();
            redirect(to.status, location(to, &chosen.route.matches, &view(parts, record)))
        }
        Action::DirectResponse(direct) => {
            record.details = "direct_response".into();
            reply::text(direct.status, bytes::Bytes::copy_from_slice(&direct.body))
        }
        Action::NonForwarding | Action::Forward(_) => reply::failed(&Failure::NoRoute, record),
    }
}
