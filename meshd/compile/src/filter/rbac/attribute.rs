//! The attributes that rules name, each as the matcher of a permission or a principal.

use meshd_model::MeshConfig;
use policies_api::authorization_policy::{Condition, Operation, Source};
use policies_xds::rbac::{Permission, Principal, permission, principal};

use super::matchers::{self, pattern};
use super::{Effect, Layer};

/// What a rule is compiled for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) mesh: &'a MeshConfig,
    /// Namespace of the policy.
    pub(super) namespace: &'a str,
    pub(super) layer: Layer,
    pub(super) effect: Effect,
}

/// An attribute that the layer does not have, or a value that no matcher can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotExpressible;

/// One condition.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    Permission(Permission),
    Principal(Principal),
}

type Compiled<T> = Result<Vec<T>, NotExpressible>;

// === impl Scope ===

impl Scope<'_> {
    /// All matchers of a source. A refusing rule loses what cannot be expressed, an allowing one fails.
    pub(super) fn source(&self, source: &Source) -> Compiled<Principal> {
        let attributes = [
            ("source.principal", &source.principals, &source.not_principals),
            ("request.auth.principal", &source.request_principals, &source.not_request_principals),
            ("source.namespace", &source.namespaces, &source.not_namespaces),
            ("source.serviceAccount", &source.service_accounts, &source.not_service_accounts),
            ("source.trustDomain", &source.trust_domains, &source.not_trust_domains),
            ("source.ip", &source.ip_blocks, &source.not_ip_blocks),
            ("remote.ip", &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        ];
        let mut found = Vec::new();
        for (key, values, not_values) in attributes {
            self.keep(self.principals(key, values, not_values), &mut found)?;
        }
        Ok(found)
    }

    /// All matchers of an operation.
    pub(super) fn operation(&self, operation: &Operation) -> Compiled<Permission> {
        let attributes = [
            ("host", &operation.hosts, &operation.not_hosts),
            ("destination.port", &operation.ports, &operation.not_ports),
            ("method", &operation.methods, &operation.not_methods),
            ("path", &operation.paths, &operation.not_paths),
        ];
        let mut found = Vec::new();
        for (key, values, not_values) in attributes {
            self.keep(self.permissions(key, values, not_values), &mut found)?;
        }
        Ok(found)
    }

    /// The matcher of a condition.
    pub(super) fn condition(&self, condition: &Condition) -> Result<Matcher, NotExpressible> {
        let key = condition.key.as_str();
        if key.starts_with("destination.") || key.starts_with("connection.") {
            let found = self.permissions(key, &condition.values, &condition.not_values)?;
            return Ok(Matcher::Permission(super::all_permissions(found)));
        }
        let found = self.principals(key, &condition.values, &condition.not_values)?;
        Ok(Matcher::Principal(super::all_principals(found)))
    }

    fn keep<T>(&self, compiled: Compiled<T>, into: &mut Vec<T>) -> Result<(), NotExpressible> {
        match compiled {
            Ok(found) => into.extend(found),
            Err(NotExpressible) if self.effect == Effect::Deny => {}
            Err(NotExpressible) => return Err(NotExpressible),
        }
        Ok(())
    }

    fn principals(&self, key: &str, values: &[String], not_values: &[String]) -> Compiled<Principal> {
        let one_of = |list: &[String]| -> Result<Principal, NotExpressible> {
            let ids = list.iter().map(|it| self.principal(key, it)).collect::<Result<Vec<_>, _>>()?;
            Ok(Principal { identifier: Some(principal::Identifier::OrIds(principal::Set { ids })) })
        };
        let mut found = Vec::new();
        if !values.is_empty() {
            found.push(one_of(values)?);
        }
        if !not_values.is_empty() {
            found.push(Principal {
                identifier: Some(principal::Identifier::NotId(Box::new(one_of(not_values)?))),
            });
        }
        Ok(found)
    }

    fn permissions(&self, key: &str, values: &[String], not_values: &[String]) -> Compiled<Permission> {
        let one_of = |list: &[String]| -> Result<Permission, NotExpressible> {
            let rules = list.iter().map(|it| self.permission(key, it)).collect::<Result<Vec<_>, _>>()?;
            Ok(Permission { rule: Some(permission::Rule::OrRules(permission::Set { rules })) })
        };
        let mut found = Vec::new();
        if !values.is_empty() {
            found.push(one_of(values)?);
        }
        if !not_values.is_empty() {
            found.push(Permission { rule: Some(permission::Rule::NotRule(Box::new(one_of(not_values)?))) });
        }
        Ok(found)
    }

    fn principal(&self, key: &str, value: &str) -> Result<Principal, NotExpressible> {
        use principal::Identifier;
        let http = || if self.layer == Layer::Http { Ok(()) } else { Err(NotExpressible) };
        let identifier = match key {
            "source.principal" => return Ok(matchers::peer(self.mesh, value)),
            "source.namespace" => matchers::peer_path(".*", value, ".*"),
            "source.serviceAccount" => {
                let (namespace, account) = value.split_once('/').unwrap_or((self.namespace, value));
                matchers::peer_path(".*", namespace, account)
            }
            "source.trustDomain" => matchers::peer_path(value, ".*", ".*"),
            "source.ip" => Identifier::DirectRemoteIp(matchers::range(value).ok_or(NotExpressible)?),
            "remote.ip" => Identifier::RemoteIp(matchers::range(value).ok_or(NotExpressible)?),
            "request.auth.principal" => {
                http()?;
                return Ok(matchers::request_principal(value));
            }
            "request.auth.audiences" => {
                http()?;
                matchers::claim(&["aud"], value)
            }
            "request.auth.presenter" => {
                http()?;
                matchers::claim(&["azp"], value)
            }
            _ => {
                http()?;
                return self.bracketed(key, value);
            }
        };
        Ok(Principal { identifier: Some(identifier) })
    }

    /// `request.headers[name]` and `request.auth.claims[a][b]`.
    fn bracketed(&self, key: &str, value: &str) -> Result<Principal, NotExpressible> {
        let inner = |prefix: &str| {
            key.strip_prefix(prefix).and_then(|it| it.strip_prefix('[')).and_then(|it| it.strip_suffix(']'))
        };
        let identifier = if let Some(name) = inner("request.headers") {
            principal::Identifier::Header(matchers::header(name, value))
        } else if let Some(path) = inner("request.auth.claims") {
            matchers::claim(&path.split("][").collect::<Vec<_>>(), value)
        } else {
            return Err(NotExpressible);
        };
        Ok(Principal { identifier: Some(identifier) })
    }

    fn permission(&self, key: &str, value: &str) -> Result<Permission, NotExpressible> {
        use permission::Rule;
        let http = || if self.layer == Layer::Http { Ok(()) } else { Err(NotExpressible) };
        let rule = match key {
            "destination.port" => {
                Rule::DestinationPort(value.parse::<u16>().map_err(|_| NotExpressible)?.into())
            }
            "destination.ip" => Rule::DestinationIp(matchers::range(value).ok_or(NotExpressible)?),
            "connection.sni" => Rule::RequestedServerName(pattern(value, "", false)),
            "host" => {
                http()?;
                Rule::Header(matchers::host(value))
            }
            "method" => {
                http()?;
                Rule::Header(matchers::header(":method", value))
            }
            "path" => {
                http()?;
                matchers::path(value)
            }
            _ => return Err(NotExpressible),
        };
        Ok(Permission { rule: Some(rule) })
    }
}
