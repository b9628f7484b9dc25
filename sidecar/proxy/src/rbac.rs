//! Authorization: pure evaluation of policies over what is known of a peer and its request.

mod readings;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;
use sidecar_model::matcher::{MetadataMatch, StringPattern};
use sidecar_model::rbac::{Permission, Principal, RbacAction, RbacPolicy, RbacRules};
use sidecar_model::{HeaderKey, HeaderMatch, Metadata, Rbac, StringMatch};
use sidecar_route::RequestView;

use crate::listen::Downstream;
use readings::{Readings, is_literal};

/// Namespace of what policies that are only tried leave in a request's metadata.
const METADATA: &str = "envoy.filters.http.rbac";
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

/// What policies that are only tried say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shadow {
    /// They would let it pass.
    pub(crate) allowed: bool,
    /// The policy that matched.
    pub(crate) policy: Option<Arc<str>>,
}

/// All that one filter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) shadow: Option<Shadow>,
    /// What a filter that only notes has found.
    audit: Option<bool>,
}

impl Judged {
    /// Leaves in a request's metadata what later filters and logs may ask for: Envoy's names.
    pub(crate) fn note(&self, rbac: &Rbac, metadata: &mut Option<Metadata>) {
        if let Some(shadow) = &self.shadow {
            let prefix = &rbac.shadow_prefix;
            let result = if shadow.allowed { "allowed" } else { "denied" };
            let policy = shadow.policy.as_ref();
            let fields = [
                policy.map(|policy| (format!("{prefix}shadow_effective_policy_id"), Value::from(&**policy))),
                Some((format!("{prefix}shadow_engine_result"), Value::from(result))),
            ];
            metadata.get_or_insert_default().extend(METADATA, fields.into_iter().flatten());
        }
        if let Some(hint) = self.audit {
            let field = ("access_log_hint".to_owned(), Value::from(hint));
            metadata.get_or_insert_default().extend("envoy.common", [field]);
        }
    }
}

/// Judges a connection. Conditions on HTTP never match.
pub(crate) fn connection(rbac: &Rbac, peer: &Peer<'_>) -> Verdict {
    judge(rbac, peer, None).verdict
}

/// Judges a request.
pub(crate) fn request(rbac: &Rbac, peer: &Peer<'_>, request: &RequestView<'_>) -> Judged {
    judge(rbac, peer, Some(request))
}

fn judge(rbac: &Rbac, peer: &Peer<'_>, request: Option<&RequestView<'_>>) -> Judged {
    let path = request.map(|request| Readings::of(request.path_only()));
    let context = Context { peer, request, path };
    let shadow = rbac.shadow_rules.as_ref().map(|rules| {
        let policy = context.find(rules).map(|policy| Arc::clone(&policy.name));
        let allowed = match rules.action {
            RbacAction::Allow => policy.is_some(),
            RbacAction::Deny => policy.is_none(),
            RbacAction::Log => true,
        };
        tracing::debug!(?policy, allowed, action = ?rules.action, "Shadow authorization");
        Shadow { allowed, policy }
    });
    let Some(rules) = &rbac.rules else { return Judged { verdict: Verdict::Allowed, shadow, audit: None } };
    let found = context.find(rules);
    let audit = (rules.action == RbacAction::Log).then_some(found.is_some());
    let verdict = match (rules.action, found) {
        (RbacAction::Allow, None) => Verdict::Denied("none".into()),
        (RbacAction::Deny, Some(policy)) => Verdict::Denied(Arc::clone(&policy.name)),
        (RbacAction::Allow, Some(_)) | (RbacAction::Deny, None) | (RbacAction::Log, _) => Verdict::Allowed,
    };
    Judged { verdict, shadow, audit }
}

struct Context<'a> {
    peer: &'a Peer<'a>,
    request: Option<&'a RequestView<'a>>,
    path: Option<Readings<'a>>,
}

impl Context<'_> {
    fn find<'r>(&self, rules: &'r RbacRules) -> Option<&'r RbacPolicy> {
        // Of the readings of a path one suffices to refuse, all are needed to let in.
        let any = rules.action != RbacAction::Allow;
        rules.policies.iter().find(|policy| {
            policy.permissions.iter().any(|permission| self.permits(permission, any))
                && policy.principals.iter().any(|principal| self.is(principal, any))
        })
    }

    fn permits(&self, permission: &Permission, any: bool) -> bool {
        match permission {
            Permission::Any => true,
            Permission::And(all) => all.iter().all(|one| self.permits(one, any)),
            Permission::Or(some) => some.iter().any(|one| self.permits(one, any)),
            Permission::Not(one) => !self.permits(one, !any),
            Permission::Header(matcher) => self.header(matcher),
            Permission::UrlPath(matcher) => self.path(matcher, any),
            Permission::UrlTemplate(template) => {
                self.path.as_ref().is_some_and(|path| path.hold(any, false, |text| template.is_match(text)))
            }
            Permission::DestinationIp(range) => range.contains(&self.peer.local.ip()),
            Permission::DestinationPort(port) => self.peer.local.port() == *port,
            Permission::DestinationPortRange { start, end } => {
                let port = self.peer.local.port();
                port >= *start && u32::from(port) < *end
            }
            Permission::Metadata(matcher) => self.metadata(matcher),
            Permission::RequestedServerName(matcher) => matcher.is_match(self.peer.server_name),
        }
    }

    fn is(&self, principal: &Principal, any: bool) -> bool {
        match principal {
            Principal::Any => true,
            Principal::And(all) => all.iter().all(|one| self.is(one, any)),
            Principal::Or(some) => some.iter().any(|one| self.is(one, any)),
            Principal::Not(one) => !self.is(one, !any),
            Principal::Authenticated(name) => self.authenticated(name.as_ref()),
            Principal::SourceIp(range) => range.contains(&self.peer.source),
            Principal::DirectRemoteIp(range) => range.contains(&self.peer.direct),
            Principal::RemoteIp(range) => range.contains(&self.peer.remote),
            Principal::Header(matcher) => self.header(matcher),
            Principal::UrlPath(matcher) => self.path(matcher, any),
            Principal::Metadata(matcher) => self.metadata(matcher),
            Principal::FilterState(key, matcher) => {
                **key == *PEER_PRINCIPAL && self.peer.uris.first().is_some_and(|uri| matcher.is_match(uri))
            }
        }
    }

    fn path(&self, matcher: &StringMatch, any: bool) -> bool {
        let literal = match &matcher.pattern {
            StringPattern::Exact(text)
            | StringPattern::Prefix(text)
            | StringPattern::Suffix(text)
            | StringPattern::Contains(text) => is_literal(text),
            StringPattern::Regex(regex) => is_literal(regex.as_str()),
        };
        self.path.as_ref().is_some_and(|path| path.hold(any, literal, |text| matcher.is_match(text)))
    }

    /// A header that stands several times matches when all its values together do, or one alone: whoever reads it may look at any.
    fn header(&self, matcher: &HeaderMatch) -> bool {
        let Some(request) = self.request else { return false };
        let whole = matcher.is_match(request.header(&matcher.key).as_deref());
        let HeaderKey::Name(name) = &matcher.key else { return whole };
        let values = request.headers.get_all(name).iter();
        if request.headers.get_all(name).iter().nth(1).is_none() {
            return whole;
        }
        let mut single =
            values.map(|value| matcher.is_match(Some(&String::from_utf8_lossy(value.as_bytes()))));
        if matcher.invert { whole && single.all(|it| it) } else { whole || single.any(|it| it) }
    }

    fn metadata(&self, matcher: &MetadataMatch) -> bool {
        match self.request.and_then(|request| request.metadata) {
            Some(metadata) => matcher.is_match(metadata),
            None => matcher.is_match(&Metadata::default()),
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
