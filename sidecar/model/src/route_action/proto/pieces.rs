//! Mirrors, ingredients of hashes, upgrades.

use crate::convert::{At, Converted, each, flag, header_text, not_empty, refuse, required};
use crate::hcm::Upgrade;
use crate::invalid::Invalid;
use crate::matcher::Fraction;
use crate::matcher::proto::{header_key, regex_rewrite, runtime_fraction};
use crate::route_action::{HashPolicy, HashSource, Mirror};
use policies_xds::route::route_action::hash_policy::{Cookie, PolicySpecifier};
use policies_xds::route::route_action::{self as pb, RequestMirrorPolicy, UpgradeConfig};

pub(crate) fn mirrors(field: &str, messages: &[RequestMirrorPolicy]) -> Converted<Vec<Mirror>> {
    each(field, messages, mirror)
}

fn mirror(message: &RequestMirrorPolicy) -> Converted<Mirror> {
    refuse("cluster_header", !message.cluster_header.is_empty())?;
    refuse("request_headers_mutations", !message.request_headers_mutations.is_empty())?;
    refuse("host_rewrite_literal", !message.host_rewrite_literal.is_empty())?;
    Ok(Mirror {
        cluster: not_empty("cluster", &message.cluster)?.into(),
        fraction: message
            .runtime_fraction
            .as_ref()
            .map_or(Ok(Fraction::ALL), runtime_fraction)
            .at("runtime_fraction")?,
        keep_host: message.disable_shadow_host_suffix_append,
    })
}

pub(super) fn hash_policy(message: &pb::HashPolicy) -> Converted<HashPolicy> {
    let source = match required("policy_specifier", &message.policy_specifier)? {
        PolicySpecifier::Header(header) => HashSource::Header {
            name: header_key("header.header_name", &header.header_name)?,
            rewrite: header
                .regex_rewrite
                .as_ref()
                .map(regex_rewrite)
                .transpose()
                .at("header.regex_rewrite")?,
        },
        PolicySpecifier::Cookie(message) => cookie(message).at("cookie")?,
        PolicySpecifier::ConnectionProperties(properties) if properties.source_ip => HashSource::SourceIp,
        PolicySpecifier::ConnectionProperties(_) => {
            return Err(Invalid::new("connection_properties", "must ask for `source_ip`"));
        }
        PolicySpecifier::QueryParameter(parameter) => {
            HashSource::Query(not_empty("query_parameter.name", &parameter.name)?.into())
        }
        PolicySpecifier::FilterState(state) => {
            HashSource::FilterState(not_empty("filter_state.key", &state.key)?.into())
        }
    };
    Ok(HashPolicy { source, terminal: message.terminal })
}

/// Everything here may end up in a `set-cookie` header.
fn cookie(message: &Cookie) -> Converted<HashSource> {
    Ok(HashSource::Cookie {
        name: cookie_text("name", not_empty("name", &message.name)?)?,
        ttl: crate::convert::optional_duration("ttl", &message.ttl)?,
        path: cookie_text("path", &message.path)?,
        attributes: each("attributes", &message.attributes, |attribute| {
            let name = cookie_text("name", not_empty("name", &attribute.name)?)?;
            Ok((name, cookie_text("value", &attribute.value)?))
        })?,
    })
}

fn cookie_text(field: &str, text: &str) -> Converted<Box<str>> {
    if text.contains(';') {
        return Err(Invalid::new(field, "must not have a semicolon"));
    }
    header_text(field, text).map(Into::into)
}

pub(super) fn upgrade(message: &UpgradeConfig) -> Converted<Upgrade> {
    if let Some(connect) = &message.connect_config {
        refuse("connect_config.proxy_protocol_config", connect.proxy_protocol_config.is_some())?;
        refuse("connect_config.allow_post", connect.allow_post)?;
    }
    let protocol = not_empty("upgrade_type", &message.upgrade_type)?.to_ascii_lowercase().into();
    let terminates = message.connect_config.is_some() && message.upgrade_type.eq_ignore_ascii_case("CONNECT");
    Ok(Upgrade { protocol, enabled: flag(&message.enabled, true), terminates })
}
