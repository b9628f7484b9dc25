//! The filters of a connection manager, in their order.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use sidecar_external::HeaderChange;
use sidecar_http::Body;
use sidecar_model::http_filter::HeaderMutation;
use sidecar_model::jwt::JwtRequirementChoice;
use sidecar_model::{Action, HttpFilterKind, RouteFilter, RouteFilterConfig};

use super::Connection;
use super::cors::{self, Verdict as Cors};
use super::failure::Failure;
use super::grpc_web;
use super::mutate::{self, Side};
use super::record::Record;
use super::router::{Chosen, view};
use super::{ext_authz, fault, jwks, rate_limit, reply};
use crate::config::{Config, HcmPlan};
use crate::jwt::{JwtPlan, Now, Refusal};
use crate::rbac::{self, Peer, Verdict};

/// What filters want of the response.
#[derive(Default)]
pub(super) struct Afterwards {
    /// Headers that are set.
    pub(super) headers: HeaderMap,
    /// Headers that are changed, as an authorization service said.
    pub(super) changes: Vec<HeaderChange>,
    /// The answer is one to a preflight, which no route changes.
    pub(super) preflight: bool,
    /// Changes by header mutation filters.
    pub(super) mutations: Vec<Arc<HeaderMutation>>,
    /// The client speaks gRPC-Web.
    pub(super) grpc_web: Option<grpc_web::Call>,
    /// The request is another one now: its route is to be chosen anew.
    pub(super) reroute: bool,
}

/// Runs every filter before the router; an answer ends the request. What the filters so far want of it is in `afterwards`.
#[expect(clippy::too_many_arguments, reason = "each is another part of the request and its surroundings")]
pub(super) async fn run(
    connection: &Connection,
    config: &Config,
    plan: &HcmPlan,
    chosen: Option<&Chosen>,
    parts: &mut Parts,
    body: &mut Body,
    record: &mut Record,
    afterwards: &mut Afterwards,
) -> Result<(), Response<Body>> {
    let worker = &connection.down.worker;
    for filter in &plan.hcm.http_filters {
        let here = chosen.and_then(|chosen| chosen.filter(&filter.name));
        if here.map_or(filter.disabled, |here| here.disabled) {
            continue;
        }
        match &filter.kind {
            HttpFilterKind::Rbac(rules) => {
                let rules = match here.and_then(|here| here.config.as_ref()) {
                    Some(RouteFilterConfig::Rbac(rules)) => rules.as_ref(),
                    _ => Some(rules),
                };
                let Some(rules) = rules else { continue };
                let mut peer = Peer::of(&connection.down);
                peer.remote = record.remote.ip().to_canonical();
                let judged = rbac::request(rules, &peer, &view(parts, record));
                if let Some(shadow) = &judged.shadow {
                    worker.shared.stats.count_shadow(rules, shadow.allowed);
                }
                judged.note(rules, &mut record.metadata);
                if let Verdict::Denied(policy) = judged.verdict {
                    worker.shared.stats.rbac_denied.fetch_add(1, Relaxed);
                    return Err(reply::failed(&Failure::Denied(policy), record));
                }
            }
            HttpFilterKind::Fault(own) => {
                let fault = chosen.and_then(Chosen::fault).unwrap_or(own);
                let cluster = chosen.and_then(|chosen| chosen.cluster_name());
                if fault::applies(fault, &view(parts, record), cluster, worker) {
                    fault::inject(fault, worker, record)
                        .await
                        .map_err(|failure| reply::failed(&failure, record))?;
                }
            }
            HttpFilterKind::Cors => {
                if let Some(policy) = chosen.and_then(Chosen::cors) {
                    match cors::judge(&policy, &parts.method, &parts.headers, worker.random()) {
                        Cors::Pass => {}
                        Cors::Allow(headers) => afterwards.headers.extend(headers),
                        Cors::Answer(response) => {
                            record.details = "cors_preflight".into();
                            afterwards.preflight = true;
                            return Err(response);
                        }
                    }
                }
            }
            HttpFilterKind::HeaderMutation(own) => {
                let mutation = match here.and_then(|here| here.config.as_ref()) {
                    Some(RouteFilterConfig::HeaderMutation(mutation)) => mutation,
                    _ => own,
                };
                mutate::apply(&mutation.request, &mut parts.headers, record, &Side::Request);
                afterwards.mutations.push(Arc::clone(mutation));
            }
            HttpFilterKind::JwtAuthn(_) => {
                let choice = match here.and_then(|here| here.config.as_ref()) {
                    Some(RouteFilterConfig::Jwt(choice)) => Some(&**choice),
                    _ => None,
                };
                if let Some((_, jwt)) = plan.jwt.iter().find(|(name, _)| **name == *filter.name) {
                    Box::pin(jwks::ready(jwt, parts, worker)).await;
                    afterwards.reroute |= token(jwt, choice, parts, record, worker.random())?;
                }
            }
            HttpFilterKind::GrpcWeb => afterwards.grpc_web = grpc_web::begin(&mut parts.headers),
            HttpFilterKind::ExtAuthz(filter) => {
                let settings = match here.and_then(|here| here.config.as_ref()) {
                    Some(RouteFilterConfig::ExtAuthz(None)) => continue,
                    Some(RouteFilterConfig::ExtAuthz(Some(settings))) => Some(&**settings),
                    _ => None,
                };
                let asking = ext_authz::Asking { connection, config, filter, settings };
                // Boxed: a request that nobody is asked about shall not carry its size.
                Box::pin(asking.judge(parts, body, record, afterwards)).await?;
            }
            HttpFilterKind::LocalRateLimit(own) => {
                let limit = match here.and_then(|here| here.config.as_ref()) {
                    Some(RouteFilterConfig::LocalRateLimit(limit)) => limit,
                    _ => own,
                };
                rate_limit::local(limit, connection, chosen, parts, record, afterwards)?;
            }
            HttpFilterKind::RateLimit(filter) => {
                let route = match here.and_then(|here| here.config.as_ref()) {
                    Some(RouteFilterConfig::RateLimit(route)) => Some(&**route),
                    _ => None,
                };
                let asking = rate_limit::Asking { connection, config, filter, route, chosen };
                Box::pin(asking.judge(parts, record, afterwards)).await?;
            }
            HttpFilterKind::Native(_) | HttpFilterKind::Router(_) => {}
        }
    }
    Ok(())
}

/// Judges the token of a request; what it proves is in the record afterwards. Whether it proves anything.
#[expect(clippy::result_large_err, reason = "the answer is passed on, not propagated through layers")]
fn token(
    jwt: &JwtPlan,
    choice: Option<&JwtRequirementChoice>,
    parts: &mut Parts,
    record: &mut Record,
    random: u64,
) -> Result<bool, Response<Body>> {
    let now = Now { wall: SystemTime::now(), steady: Instant::now() };
    let rule = |parts: &Parts| jwt.rule(&view(parts, record), random);
    match jwt.judge(parts, &rule, choice, now) {
        Ok(None) => Ok(false),
        Ok(Some(metadata)) => {
            record.metadata.get_or_insert_default().merge(metadata);
            Ok(true)
        }
        Err(refusal) => {
            let failure = match refusal {
                Refusal::Audience => Failure::Forbidden(refusal.text()),
                _ => Failure::Unauthenticated(refusal.text()),
            };
            let mut response = reply::failed(&failure, record);
            let view = view(parts, record);
            let error = if refusal == Refusal::Missing { "" } else { ", error=\"invalid_token\"" };
            let challenge =
                format!("Bearer realm=\"{}://{}{}\"{error}", view.scheme, view.authority, view.path_only());
            if let Ok(value) = HeaderValue::try_from(challenge) {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
            Err(response)
        }
    }
}

impl Chosen {
    /// What the route, its host or its weighted cluster says about a filter; the more specific first.
    fn filter(&self, name: &str) -> Option<&RouteFilter> {
        self.weighted()
            .and_then(|weighted| weighted.filters.of(name))
            .or_else(|| self.route.filters.of(name))
            .or_else(|| self.host.filters.of(name))
    }

    fn fault(&self) -> Option<&Arc<sidecar_model::Fault>> {
        self.weighted()
            .and_then(|weighted| weighted.filters.fault())
            .or_else(|| self.route.filters.fault())
            .or_else(|| self.host.filters.fault())
    }

    /// The policy of a forwarding route, completed by that of its host; others have none.
    fn cors(&self) -> Option<Cow<'_, sidecar_model::CorsPolicy>> {
        if !matches!(self.route.action, Action::Forward(_)) {
            return None;
        }
        let weighted = self.weighted().and_then(|weighted| weighted.filters.cors());
        let mut all = [weighted, self.route.filters.cors(), self.host.filters.cors()].into_iter().flatten();
        let first = Cow::Borrowed(&**all.next()?);
        Some(all.fold(first, |own, other| Cow::Owned(own.into_owned().over(other))))
    }
}
