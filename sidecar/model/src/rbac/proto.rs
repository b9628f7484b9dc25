//! `envoy.config.rbac.v3` and the HTTP and network authorization filters.
//!
//! Nothing in here is passed over: what is not understood could let the wrong peer in.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{NetworkRbac, Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules};
use crate::address::proto::cidr;
use crate::convert::{At, Converted, each, enumeration, port, refuse, required, unpack};
use crate::invalid::Invalid;
use crate::matcher::MetadataMatch;
use crate::matcher::proto::{header_match, metadata_match, path_match, path_template, string_match};
use policies_xds::matcher::{FilterStateMatcher, filter_state_matcher};
use policies_xds::rbac::permission::Rule;
use policies_xds::rbac::principal::Identifier;
use policies_xds::rbac::rbac::Action;
use policies_xds::rbac::{self, MetadataSource, SourcedMetadata};
use policies_xds::types::Int32Range;
use policies_xds::uri_template::UriTemplateMatchConfig;
use policies_xds::{http_rbac, network_rbac};

pub(crate) fn http_rbac(message: &http_rbac::Rbac) -> Converted<Rbac> {
    refuse("matcher", message.matcher.is_some())?;
    refuse("shadow_matcher", message.shadow_matcher.is_some())?;
    Ok(Rbac {
        rules: message.rules.as_ref().map(rules).transpose().at("rules")?,
        shadow_rules: message.shadow_rules.as_ref().map(rules).transpose().at("shadow_rules")?,
        shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
    })
}

pub(crate) fn network_rbac(message: &network_rbac::Rbac) -> Converted<NetworkRbac> {
    refuse("matcher", message.matcher.is_some())?;
    refuse("shadow_matcher", message.shadow_matcher.is_some())?;
    Ok(NetworkRbac {
        stat_prefix: message.stat_prefix.as_str().into(),
        rbac: Rbac {
            rules: message.rules.as_ref().map(rules).transpose().at("rules")?,
            shadow_rules: message.shadow_rules.as_ref().map(rules).transpose().at("shadow_rules")?,
            shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
        },
    })
}

fn rules(message: &rbac::Rbac) -> Converted<RbacRules> {
    let action = match enumeration("action", message.action)? {
        Action::Allow => RbacAction::Allow,
        Action::Deny => RbacAction::Deny,
        Action::Log => RbacAction::Log,
    };
    let mut named: Vec<_> = message.policies.iter().collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    let policies = named
        .into_iter()
        .map(|(name, message)| policy(name, message).at(&format!("policies[`{name}`]")))
        .collect::<Converted<_>>()?;
    Ok(RbacRules { action, policies })
}

fn policy(name: &str, message: &rbac::Policy) -> Converted<RbacPolicy> {
    refuse("condition", message.condition.is_some())?;
    refuse("checked_condition", message.checked_condition.is_some())?;
    Ok(RbacPolicy {
        name: name.into(),
        permissions: some_of("permissions", &message.permissions, permission)?,
        principals: some_of("principals", &message.principals, principal)?,
    })
}

/// Converts a list that must not be empty: an empty one would match everything or nothing by surprise.
fn some_of<P, T>(list: &str, items: &[P], convert: impl FnMut(&P) -> Converted<T>) -> Converted<Vec<T>> {
    if items.is_empty() { Err(Invalid::missing(list)) } else { each(list, items, convert) }
}

fn always(value: bool) -> Converted<()> {
    if value { Ok(()) } else { Err(Invalid::new("any", "must be true")) }
}

fn permission(message: &rbac::Permission) -> Converted<Permission> {
    Ok(match required("rule", &message.rule)? {
        Rule::Any(value) => always(*value).map(|()| Permission::Any)?,
        Rule::AndRules(set) => Permission::And(some_of("and_rules.rules", &set.rules, permission)?),
        Rule::OrRules(set) => Permission::Or(some_of("or_rules.rules", &set.rules, permission)?),
        Rule::NotRule(rule) => Permission::Not(Box::new(permission(rule).at("not_rule")?)),
        Rule::Header(header) => Permission::Header(header_match(header).at("header")?),
        Rule::UrlPath(path) => Permission::UrlPath(path_match(path).at("url_path")?),
        Rule::DestinationIp(range) => Permission::DestinationIp(cidr(range).at("destination_ip")?),
        Rule::DestinationPort(value) => Permission::DestinationPort(port("destination_port", *value)?),
        Rule::DestinationPortRange(range) => port_range(range).at("destination_port_range")?,
        Rule::Metadata(matcher) => Permission::Metadata(metadata_match(matcher).at("metadata")?),
        Rule::SourcedMetadata(message) => {
            Permission::Metadata(sourced_metadata(message).at("sourced_metadata")?)
        }
        Rule::RequestedServerName(matcher) => {
            Permission::RequestedServerName(string_match(matcher).at("requested_server_name")?)
        }
        Rule::UriTemplate(extension) => {
            let any = required("uri_template.typed_config", &extension.typed_config)?;
            let message: UriTemplateMatchConfig = unpack("uri_template.typed_config", any)?;
            Permission::UrlTemplate(path_template(&message.path_template).at("uri_template")?)
        }
        Rule::Matcher(extension) => {
            return Err(Invalid::unsupported("matcher", format!("matcher `{}`", extension.name)));
        }
    })
}

fn port_range(range: &Int32Range) -> Converted<Permission> {
    let (start, end) = (u16::try_from(range.start).ok(), u32::try_from(range.end).ok());
    match (start, end) {
        (Some(start), Some(end)) if u32::from(start) < end && end <= 65_536 => {
            Ok(Permission::DestinationPortRange { start, end })
        }
        _ => Err(Invalid::new("", format!("{}..{} is not a range of ports", range.start, range.end))),
    }
}

fn sourced_metadata(message: &SourcedMetadata) -> Converted<MetadataMatch> {
    match enumeration("metadata_source", message.metadata_source)? {
        MetadataSource::Dynamic => {
            metadata_match(required("metadata_matcher", &message.metadata_matcher)?).at("metadata_matcher")
        }
        MetadataSource::Route => Err(Invalid::unsupported("metadata_source", "metadata of the route")),
    }
}

fn principal(message: &rbac::Principal) -> Converted<Principal> {
    Ok(match required("identifier", &message.identifier)? {
        Identifier::Any(value) => always(*value).map(|()| Principal::Any)?,
        Identifier::AndIds(set) => Principal::And(some_of("and_ids.ids", &set.ids, principal)?),
        Identifier::OrIds(set) => Principal::Or(some_of("or_ids.ids", &set.ids, principal)?),
        Identifier::NotId(id) => Principal::Not(Box::new(principal(id).at("not_id")?)),
        Identifier::Authenticated(message) => {
            let name = message.principal_name.as_ref().map(string_match).transpose();
            Principal::Authenticated(name.at("authenticated.principal_name")?)
        }
        Identifier::SourceIp(range) => Principal::SourceIp(cidr(range).at("source_ip")?),
        Identifier::DirectRemoteIp(range) => Principal::DirectRemoteIp(cidr(range).at("direct_remote_ip")?),
        Identifier::RemoteIp(range) => Principal::RemoteIp(cidr(range).at("remote_ip")?),
        Identifier::Header(header) => Principal::Header(header_match(header).at("header")?),
        Identifier::UrlPath(path) => Principal::UrlPath(path_match(path).at("url_path")?),
        Identifier::Metadata(matcher) => Principal::Metadata(metadata_match(matcher).at("metadata")?),
        Identifier::SourcedMetadata(message) => {
            Principal::Metadata(sourced_metadata(message).at("sourced_metadata")?)
        }
        Identifier::FilterState(message) => filter_state(message).at("filter_state")?,
        Identifier::Custom(extension) => {
            return Err(Invalid::unsupported("custom", format!("principal `{}`", extension.name)));
        }
    })
}

fn filter_state(message: &FilterStateMatcher) -> Converted<Principal> {
    let key = crate::convert::not_empty("key", &message.key)?;
    match required("matcher", &message.matcher)? {
        filter_state_matcher::Matcher::StringMatch(matcher) => {
            Ok(Principal::FilterState(key.into(), string_match(matcher).at("string_match")?))
        }
        filter_state_matcher::Matcher::AddressMatch(_) => {
            Err(Invalid::unsupported("address_match", "an address"))
        }
    }
}

#[cfg(test)]
mod tests;
