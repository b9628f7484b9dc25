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
use super::filters::{self, Afterwards};
use super::record::Record;
use super::respond::{self, Shape};
use super::stream::Clocks;
use super::{prepare, reply, trace};
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
    let found = choose(connection, config, plan, &parts, record);
    if let Ok(chosen) = &found {
        record.route = Some((Arc::clone(&chosen.host), Arc::clone(&chosen.route)));
    }
    let host = found.as_ref().map_or_else(Option::as_ref, |chosen| Some(&chosen.host));
    // The way to HTTPS is a route of its own, which says nothing about filters.
    let to_tls = host.and_then(|host| to_tls(host, &parts, record));
    let mut chosen = found.ok().filter(|_| to_tls.is_none());
    let mut afterwards = Afterwards::default();
    let filtered = filters::run(
        connection,
        config,
        plan,
        chosen.as_ref(),
        &mut parts,
        &mut body,
        record,
        &mut afterwards,
    )
    .await;
    if let Err(mut response) = filtered {
        record.path = parts.uri.clone();
        record.capture_request(&parts.uri, &parts.headers);
        if let Some(chosen) = chosen.filter(|_| !afterwards.preflight) {
            response = shape.refused(response, &chosen, &parts.headers, record);
        }
        return shape.local(response, record, Some(&afterwards)).into();
    }
    if let Some(response) = to_tls {
        record.capture_request(&parts.uri, &parts.headers);
        return shape.local(response, record, Some(&afterwards)).into();
    }
    if afterwards.reroute {
        // Claims, or what a service made of the request, may decide the route.
        chosen = choose(connection, config, plan, &parts, record).ok();
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
            attempt::forward(&forwarding, &mut parts, body, record).await
        }
        action => {
            let response = answer(action, &chosen, &parts, record);
            record.path = parts.uri.clone();
            record.capture_request(&parts.uri, &parts.headers);
            let response = shape.routed(response, &chosen, &parts.headers, record);
            shape.local(response, record, Some(&afterwards)).into()
        }
    }
}

/// The route of a request; without one, the host that has none for it.
fn choose(
    connection: &Connection,
    config: &Config,
    plan: &HcmPlan,
    parts: &Parts,
    record: &Record,
) -> Result<Chosen, Option<Arc<VirtualHost>>> {
    let table = match (&plan.inline_routes, &plan.hcm.route) {
        (Some(table), _) => table,
        (None, RouteSource::Rds(name)) => config.routes.get(name).ok_or(None)?,
        (None, RouteSource::Inline(_)) => return Err(None),
    };
    let view = view(parts, record);
    let random = connection.down.worker.random();
    let (host, route) = match table.find(&view, random) {
        Found::Route(host, route) => (host, route),
        Found::NoRoute(host) => return Err(Some(Arc::clone(host))),
        Found::NoHost => return Err(None),
    };
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
        let Some(pick) = pick_cluster(action, &view, client, random, seed) else { return Ok(chosen) };
        chosen.cluster = Some(pick.shared.map_or_else(|| pick.name.into(), Arc::clone));
        if let (Some(entry), ClusterChoice::Weighted(all)) = (pick.weighted, &action.cluster) {
            chosen.weighted = all.clusters.iter().position(|one| std::ptr::eq(one, entry));
        }
    }
    Ok(chosen)
}

/// A redirect of plain text to HTTPS, when the host asks for it.
fn to_tls(host: &VirtualHost, parts: &Parts, record: &mut Record) -> Option<Response<Body>> {
    if host.require_tls == TlsRequirement::None || record.scheme == "https" {
        return None;
    }
    let location = tls_location(&view(parts, record));
    record.details = "tls_redirect".into();
    Some(redirect(StatusCode::MOVED_PERMANENTLY, location, record))
}

fn redirect(status: StatusCode, location: String, record: &mut Record) -> Response<Body> {
    let mut response = reply::local(status, &[], record);
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
            let location = location(to, &chosen.route.matches, &view(parts, record));
            redirect(to.status, location, record)
        }
        Action::DirectResponse(direct) => {
            record.details = "direct_response".into();
            let mut response = reply::local(direct.status, &direct.body, record);
            if direct.status.is_redirection() || direct.status == StatusCode::CREATED {
                // As Envoy has it: to where the request was.
                let view = view(parts, record);
                let here = format!("{}://{}{}", view.scheme, view.authority, view.path);
                if let Ok(here) = HeaderValue::try_from(here) {
                    response.headers_mut().insert(header::LOCATION, here);
                }
            }
            response
        }
        Action::NonForwarding | Action::Forward(_) => reply::failed(&Failure::NoRoute, record),
    }
}
