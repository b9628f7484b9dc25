//! Authorization: pure evaluation of policies over what is known of a peer and its request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sidecar_model::rbac::{Permission, Principal, RbacAction, RbacPolicy, RbacRules};
use sidecar_model::{Rbac, StringMatch};
use sidecar_route::RequestView;

use crate::listen::Downstream;

/// Filter state under which Istio's policies may ask for the peer's identity.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// What policies may ask about a connection.
#[derive(Debug)]
pub(crate) struct Peer<'a> {
    /// URI names of the verified certificate.
    pub(crate) uris: &'a [String],
    /// DNS names of the verified certificate.
    pub(crate) dns_names: &'a [String],
    /// Subject of the verified certificate.
    pub(crate) subject: &'a str,
    /// Whether there is a verified certificate.
    pub(crate) authenticated: bool,
    /// Whose socket it is.
    pub(crate) direct: IpAddr,
    /// Where the connection comes from: what a PROXY protocol header said, else the socket's address.
    pub(crate) source: IpAddr,
    /// The client's address, as far as it is known and trusted.
    pub(crate) remote: IpAddr,
    /// Where the connection was going to.
    pub(crate) local: SocketAddr,
    /// Server name of the client hello.
    pub(crate) server_name: &'a str,
}

impl<'a> Peer<'a> {
    pub(crate) fn of(downstream: &'a Downstream) -> Self {
        let certificate = downstream.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        let address = downstream.peer.ip().to_canonical();
        Self {
            uris: certificate.map_or(&[], |peer| &peer.uris),
            dns_names: certificate.map_or(&[], |peer| &peer.dns_names),
            subject: certificate.map_or("", |peer| &peer.subject),
            authenticated: certificate.is_some(),
            direct: downstream.direct.ip().to_canonical(),
            source: address,
            remote: address,
            local: SocketAddr::new(downstream.local.ip().to_canonical(), downstream.local.port()),
            server_name: &downstream.server_name,
        }
    }
}

/// What authorization says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may pass.
    Allowed,
    /// It may not; the policy that said so, or `none` when no policy allowed it.
    Denied(Arc<str>),
}

/// Judges a connection. Conditions on HTTP never match.
pub(crate) fn connection(rbac: &Rbac, peer: &Peer<'_>) -> Verdict {
    judge(rbac, peer, None)
}

/// Judges a request.
pub(crate) fn request(rbac: &Rbac, peer: &Peer<'_>, request: &RequestView<'_>) -> Verdict {
    judge(rbac, peer, Some(request))
}

fn judge(rbac: &Rbac, peer: &Peer<'_>, request: Option<&RequestView<'_>>) -> Verdict {
    let context = Context { peer, request };
    if let Some(rules) = &rbac.shadow_rules {
        let policy = context.find(rules).map_or("none", |policy| &policy.name);
        tracing::debug!(%policy, action = ?rules.action, "Shadow authorization");
    }
    let Some(rules) = &rbac.rules else { return Verdict::Allowed };
    match (rules.action, context.find(rules)) {
        (RbacAction::Allow, None) => Verdict::Denied("none".into()),
        (RbacAction::Deny, Some(policy)) => Verdict::Denied(Arc::clone(&policy.name)),
        (RbacAction::Allow, Some(_)) | (RbacAction::Deny, None) | (RbacAction::Log, _) => Verdict::Allowed,
    }
}

struct Context<'a> {
    peer: &'a Peer<'a>,
    request: Option<&'a RequestView<'a>>,
}

impl Context<'_> {
    fn find<'r>(&self, rules: &'r RbacRules) -> Option<&'r RbacPolicy> {
        rules.policies.iter().find(|policy| {
            policy.permissions.iter().any(|permission| self.permits(permission))
                && policy.principals.iter().any(|principal| self.is(principal))
        })
    }

    fn permits(&self, permission: &Permission) -> bool {
        let path =
            |matches: &dyn Fn(&str) -> bool| self.request.is_some_and(|request| matches(request.path_only()));
        match permission {
            Permission::Any => true,
            Permission::And(all) => all.iter().all(|one| self.permits(one)),
            Permission::Or(any) => any.iter().any(|one| self.permits(one)),
            Permission::Not(one) => !self.permits(one),
            Permission::Header(matcher) => {
                self.request.is_some_and(|request| matcher.is_match(request.header(&matcher.key).as_deref()))
            }
            Permission::UrlPath(matcher) => path(&|text| matcher.is_match(text)),
            Permission::UrlTemplate(regex) => path(&|text| regex.is_match(text)),
            Permission::DestinationIp(range) => range.contains(&self.peer.local.ip()),
            Permission::DestinationPort(port) => self.peer.local.port() == *port,
            Permission::DestinationPortRange { start, end } => {
                let port = self.peer.local.port();
                port >= *start && u32::from(port) < *end
            }
            Permission::Metadata(matcher) => self.request.and_then(|request| request.metadata).map_or_else(
                || matcher.is_match(&sidecar_model::Metadata::default()),
                |metadata| matcher.is_match(metadata),
            ),
            Permission::RequestedServerName(matcher) => matcher.is_match(self.peer.server_name),
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        let path =
            |matches: &dyn Fn(&str) -> bool| self.request.is_some_and(|request| matches(request.path_only()));
        match principal {
            Principal::Any => true,
            Principal::And(all) => all.iter().all(|one| self.is(one)),
            Principal::Or(any) => any.iter().any(|one| self.is(one)),
            Principal::Not(one) => !self.is(one),
            Principal::Authenticated(name) => self.authenticated(name.as_ref()),
            Principal::SourceIp(range) => range.contains(&self.peer.source),
            Principal::DirectRemoteIp(range) => range.contains(&self.peer.direct),
            Principal::RemoteIp(range) => range.contains(&self.peer.remote),
            Principal::Header(matcher) => {
                self.request.is_some_and(|request| matcher.is_match(request.header(&matcher.key).as_deref()))
            }
            Principal::UrlPath(matcher) => path(&|text| matcher.is_match(text)),
            Principal::Metadata(matcher) => self.request.and_then(|request| request.metadata).map_or_else(
                || matcher.is_match(&sidecar_model::Metadata::default()),
                |metadata| matcher.is_match(metadata),
            ),
            Principal::FilterState(key, matcher) => {
                **key == *PEER_PRINCIPAL && self.peer.uris.first().is_some_and(|uri| matcher.is_match(uri))
            }
        }
    }

    /// URI names decide when there are any, else DNS names, else the subject.
    fn authenticated(&self, name: Option<&StringMatch>) -> bool {
        let Some(matcher) = name else { return self.peer.authenticated };
        if !self.peer.authenticated {
            return false;
        }
        if !self.peer.uris.is_empty() {
            return self.peer.uris.iter().any(|uri| matcher.is_match(uri));
        }
        if !self.peer.dns_names.is_empty() {
            return self.peer.dns_names.iter().any(|dns| matcher.is_match(dns));
        }
        matcher.is_match(self.peer.subject)
    }
}

#[cfg(test)]
mod tests;
