//! `envoy.extensions.filters.http.jwt_authn.v3`.
//!
//! As in authorization, nothing that narrows what is accepted is passed over.

use super::{
    ClaimHeader, JwksSource, JwtAuthn, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementChoice, JwtRule,
};
use crate::convert::{
    At, Converted, boxed, data_text, duration_or, each, header_name, not_empty, refuse, required,
};
use crate::invalid::Invalid;
use crate::matcher::proto::string_match;
use crate::route::proto::route_match;
use http::HeaderName;
use policies_xds::core::http_uri::HttpUpstreamType;
use policies_xds::jwt_authn::jwt_provider::JwksSourceSpecifier;
use policies_xds::jwt_authn::jwt_requirement::RequiresType;
use policies_xds::jwt_authn::per_route_config::RequirementSpecifier;
use policies_xds::jwt_authn::requirement_rule::RequirementType;
use policies_xds::jwt_authn::{self as pb, JwtAuthentication};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default difference of clocks.
const CLOCK_SKEW_SECONDS: u32 = 60;
/// Envoy's default life of a fetched key set.
const JWKS_CACHE: Duration = Duration::from_secs(600);
/// Time for a fetch when none is written.
const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn jwt_authn(message: &JwtAuthentication) -> Converted<JwtAuthn> {
    refuse("filter_state_rules", message.filter_state_rules.is_some())?;
    let mut providers = BTreeMap::new();
    for (name, message) in &message.providers {
        let converted = provider(message).at(&format!("providers[`{name}`]"))?;
        providers.insert(Arc::from(name.as_str()), Arc::new(converted));
    }
    let mut requirements = BTreeMap::new();
    for (name, message) in &message.requirement_map {
        let converted = requirement(message, &providers).at(&format!("requirement_map[`{name}`]"))?;
        requirements.insert(Box::from(name.as_str()), converted);
    }
    let rules = each("rules", &message.rules, |message| rule(message, &providers, &requirements))?;
    Ok(JwtAuthn { providers, rules, requirements, bypass_cors_preflight: message.bypass_cors_preflight })
}

pub(crate) fn choice(message: &pb::PerRouteConfig) -> Converted<JwtRequirementChoice> {
    match required("requirement_specifier", &message.requirement_specifier)? {
        RequirementSpecifier::Disabled(true) => Ok(JwtRequirementChoice::Disabled),
        RequirementSpecifier::Disabled(false) => Err(Invalid::new("disabled", "must be true")),
        RequirementSpecifier::RequirementName(name) => {
            Ok(JwtRequirementChoice::Named(not_empty("requirement_name", name)?.into()))
        }
    }
}

fn provider(message: &pb::JwtProvider) -> Converted<JwtProvider> {
    refuse("require_expiration", message.require_expiration)?;
    refuse("max_lifetime", message.max_lifetime.is_some())?;
    refuse("pad_forward_payload_header", message.pad_forward_payload_header)?;
    let nowhere =
        message.from_headers.is_empty() && message.from_params.is_empty() && message.from_cookies.is_empty();
    let (from_headers, from_params) = if nowhere {
        let bearer = JwtHeader { name: http::header::AUTHORIZATION, value_prefix: "Bearer ".into() };
        (vec![bearer], vec!["access_token".into()])
    } else {
        let from_headers = each("from_headers", &message.from_headers, |header| {
            let name = header_name("name", &header.name)?;
            Ok(JwtHeader { name, value_prefix: header.value_prefix.as_str().into() })
        })?;
        (from_headers, boxed(&message.from_params))
    };
    let skew = if message.clock_skew_seconds == 0 { CLOCK_SKEW_SECONDS } else { message.clock_skew_seconds };
    Ok(JwtProvider {
        issuer: message.issuer.as_str().into(),
        audiences: boxed(&message.audiences),
        subjects: message.subjects.as_ref().map(string_match).transpose().at("subjects")?,
        jwks: jwks(message)?,
        forward: message.forward,
        from_headers,
        from_params,
        from_cookies: boxed(&message.from_cookies),
        forward_payload_header: payload_header(&message.forward_payload_header)?,
        claim_to_headers: each("claim_to_headers", &message.claim_to_headers, claim_header)?,
        payload_in_metadata: message.payload_in_metadata.as_str().into(),
        space_delimited_claims: message
            .normalize_payload_in_metadata
            .as_ref()
            .map_or_else(Vec::new, |normalize| boxed(&normalize.space_delimited_claims)),
        clock_skew: Duration::from_secs(skew.into()),
    })
}

fn payload_header(name: &str) -> Converted<Option<HeaderName>> {
    if name.is_empty() { Ok(None) } else { header_name("forward_payload_header", name).map(Some) }
}

fn claim_header(message: &pb::JwtClaimToHeader) -> Converted<ClaimHeader> {
    refuse("claim_path", !message.claim_path.is_empty())?;
    Ok(ClaimHeader {
        header: header_name("header_name", &message.header_name)?,
        claim: not_empty("claim_name", &message.claim_name)?.into(),
    })
}

fn jwks(message: &pb::JwtProvider) -> Converted<JwksSource> {
    match required("jwks_source_specifier", &message.jwks_source_specifier)? {
        JwksSourceSpecifier::LocalJwks(source) => {
            Ok(JwksSource::Inline(data_text("local_jwks", source)?.into()))
        }
        JwksSourceSpecifier::RemoteJwks(remote) => remote_jwks(remote).at("remote_jwks"),
    }
}

fn remote_jwks(message: &pb::RemoteJwks) -> Converted<JwksSource> {
    let uri = required("http_uri", &message.http_uri)?;
    let HttpUpstreamType::Cluster(cluster) = required("http_uri.cluster", &uri.http_upstream_type)?;
    Ok(JwksSource::Remote {
        uri: not_empty("http_uri.uri", &uri.uri)?.into(),
        cluster: not_empty("http_uri.cluster", cluster)?.into(),
        timeout: duration_or("http_uri.timeout", &uri.timeout, JWKS_TIMEOUT)?,
        cache: duration_or("cache_duration", &message.cache_duration, JWKS_CACHE)?,
    })
}

fn rule(
    message: &pb::RequirementRule,
    providers: &BTreeMap<Arc<str>, Arc<JwtProvider>>,
    requirements: &BTreeMap<Box<str>, JwtRequirement>,
) -> Converted<JwtRule> {
    let matches = route_match(required("match", &message.r#match)?).at("match")?;
    let requirement = match &message.requirement_type {
        None => JwtRequirement::None,
        Some(RequirementType::Requires(message)) => requirement(message, providers).at("requires")?,
        Some(RequirementType::RequirementName(name)) => {
            let known = requirements.get(name.as_str());
            known.cloned().ok_or_else(|| unknown("requirement_name", "requirement", name))?
        }
    };
    Ok(JwtRule { matches, requirement })
}

fn unknown(field: &str, what: &str, name: &str) -> Invalid {
    Invalid::new(field, format!("there is no {what} `{}`", name.escape_debug()))
}

fn requirement(
    message: &pb::JwtRequirement,
    providers: &BTreeMap<Arc<str>, Arc<JwtProvider>>,
) -> Converted<JwtRequirement> {
    let named = |field: &str, name: &str| {
        let known = providers.get_key_value(name).map(|(name, _)| name.clone());
        known.ok_or_else(|| unknown(field, "provider", name))
    };
    Ok(match &message.requires_type {
        None => JwtRequirement::None,
        Some(RequiresType::ProviderName(name)) => {
            JwtRequirement::Provider { name: named("provider_name", name)?, audiences: Vec::new() }
        }
        Some(RequiresType::ProviderAndAudiences(message)) => JwtRequirement::Provider {
            name: named("provider_and_audiences.provider_name", &message.provider_name)?,
            audiences: boxed(&message.audiences),
        },
        Some(RequiresType::RequiresAny(list)) => {
            JwtRequirement::Any(each("requires_any.requirements", &list.requirements, |message| {
                requirement(message, providers)
            })?)
        }
        Some(RequiresType::RequiresAll(list)) => {
            JwtRequirement::All(each("requires_all.requirements", &list.requirements, |message| {
                requirement(message, providers)
            })?)
        }
        Some(RequiresType::AllowMissingOrFailed(_)) => JwtRequirement::AllowMissingOrFailed,
        Some(RequiresType::AllowMissing(_)) => JwtRequirement::AllowMissing,
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            return Err(Invalid::unsupported(
                "extract_only_without_validation",
                "a token that is not verified",
            ));
        }
    })
}

#[cfg(test)]
mod tests;
