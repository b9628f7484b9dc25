//! JSON web tokens: the accepted issuers of a pod.

use std::time::Duration;

use meshd_model::select::security;
use policies_api::request_authentication::JwtRule;
use policies_xds::core::{DataSource, HttpUri, data_source, http_uri};
use policies_xds::hcm::HttpFilter;
use policies_xds::jwt_authn::jwt_provider::{JwksSourceSpecifier, NormalizePayload};
use policies_xds::jwt_authn::jwt_requirement::RequiresType;
use policies_xds::jwt_authn::requirement_rule::RequirementType;
use policies_xds::jwt_authn::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementOrList,
    RemoteJwks, RequirementRule,
};
use policies_xds::protobuf::Empty;

use crate::proto::{any_of, duration, encode_with_map};
use crate::route::matches::prefix;
use crate::view::{View, outbound_name};

/// Name of the filter, and of the metadata that holds the claims.
pub(crate) const FILTER: &str = "envoy.filters.http.jwt_authn";
/// Key of the claims in that metadata.
pub(crate) const PAYLOAD: &str = "payload";
/// A key set that verifies nothing: tokens of an issuer whose keys cannot be had are refused.
const NO_KEYS: &str = r#"{"keys":[]}"#;
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const KEYS_KEPT: Duration = Duration::from_secs(300);

/// The filter, when some policy speaks of tokens.
pub(crate) fn filter(view: &View<'_>) -> Option<HttpFilter> {
    let policies =
        security::request_authentications(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|it| &it.spec.jwt_rules).collect();
    if rules.is_empty() {
        return None;
    }
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    let providers: Vec<(String, JwtProvider)> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| (format!("origins-{index}"), provider(view, rule)))
        .collect();
    let mut alternatives: Vec<JwtRequirement> =
        providers.iter().map(|(name, _)| requirement(RequiresType::ProviderName(name.clone()))).collect();
    // A request without a token passes, unless some rule demands one.
    if rules.iter().all(|it| it.presence != "REQUIRED") {
        alternatives.push(requirement(RequiresType::AllowMissing(Empty {})));
    }
    let any_of_them =
        requirement(RequiresType::RequiresAny(JwtRequirementOrList { requirements: alternatives }));
    let config = JwtAuthentication {
        rules: vec![RequirementRule {
            r#match: Some(prefix("/")),
            requirement_type: Some(RequirementType::Requires(any_of_them)),
        }],
        bypass_cors_preflight: true,
        ..Default::default()
    };
    // Providers are field 1 of the message.
    Some(super::http(FILTER, any_of::<JwtAuthentication>(encode_with_map(&config, 1, &providers))))
}

fn requirement(kind: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(kind) }
}

fn provider(view: &View<'_>, rule: &JwtRule) -> JwtProvider {
    let claims = rule.output_claim_to_headers.iter().map(|it| JwtClaimToHeader {
        header_name: it.header.clone(),
        claim_name: it.claim.clone(),
        ..Default::default()
    });
    let spaced: Vec<String> = ["scope", "permission"]
        .into_iter()
        .map(str::to_owned)
        .chain(rule.space_delimited_claims.clone())
        .collect();
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        from_headers: rule
            .from_headers
            .iter()
            .map(|it| JwtHeader { name: it.name.clone(), value_prefix: it.prefix.clone() })
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: spaced }),
        claim_to_headers: claims.collect(),
        jwks_source_specifier: Some(keys(view, rule)),
        ..Default::default()
    }
}

fn keys(view: &View<'_>, rule: &JwtRule) -> JwksSourceSpecifier {
    let inline = |text: &str| {
        JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
            ..Default::default()
        })
    };
    if !rule.jwks.is_empty() {
        return inline(&rule.jwks);
    }
    let Some((host, port)) = policies_api::validate::url_host(&rule.jwks_uri) else { return inline(NO_KEYS) };
    // Keys are fetched through the mesh, so the host must be a known service.
    let known = view.service_named(&host).filter(|it| it.port(port).is_some());
    match known {
        None => inline(NO_KEYS),
        Some(service) => JwksSourceSpecifier::RemoteJwks(RemoteJwks {
            http_uri: Some(HttpUri {
                uri: rule.jwks_uri.clone(),
                timeout: Some(duration(rule.timeout.map_or(FETCH_TIMEOUT, |it| it.0))),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(outbound_name(
                    port,
                    "",
                    &service.host,
                ))),
            }),
            cache_duration: Some(duration(KEYS_KEPT)),
            ..Default::default()
        }),
    }
}
