use super::*;
use crate::fixtures::prefix;
use crate::route::PathMatch;
use policies_xds::core::data_source::Specifier;
use policies_xds::core::{DataSource, HttpUri};
use policies_xds::jwt_authn::jwt_requirement::RequiresType;
use policies_xds::protobuf::Empty;

fn inline() -> pb::JwtProvider {
    let jwks = DataSource { specifier: Some(Specifier::InlineString("{}".into())), ..Default::default() };
    pb::JwtProvider {
        issuer: "https://issuer.test".into(),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(jwks)),
        ..Default::default()
    }
}

fn requires(kind: RequiresType) -> pb::JwtRequirement {
    pb::JwtRequirement { requires_type: Some(kind) }
}

fn message() -> JwtAuthentication {
    let provider = requires(RequiresType::ProviderName("origins-0".into()));
    let either = pb::JwtRequirementOrList {
        requirements: vec![provider, requires(RequiresType::AllowMissing(Empty {}))],
    };
    JwtAuthentication {
        providers: [("origins-0".to_owned(), inline())].into(),
        rules: vec![pb::RequirementRule {
            r#match: Some(prefix("/")),
            requirement_type: Some(RequirementType::Requires(requires(RequiresType::RequiresAny(either)))),
        }],
        bypass_cors_preflight: true,
        ..Default::default()
    }
}

#[test]
fn what_istio_sends() {
    let converted = jwt_authn(&message()).unwrap();
    let provider = &converted.providers["origins-0"];
    assert_eq!(provider.from_headers[0].name, http::header::AUTHORIZATION);
    assert_eq!(&*provider.from_headers[0].value_prefix, "Bearer ");
    assert_eq!(provider.from_params, [Box::from("access_token")]);
    assert_eq!((provider.clock_skew, provider.forward), (Duration::from_secs(60), false));
    assert_eq!(converted.rules[0].matches.path, PathMatch::Prefix("/".into()));
    let JwtRequirement::Any(either) = &converted.rules[0].requirement else { panic!("{converted:?}") };
    assert!(matches!(either[..], [JwtRequirement::Provider { .. }, JwtRequirement::AllowMissing]));
}

#[test]
fn tokens_are_looked_for_only_where_it_is_said() {
    let mut provider = inline();
    provider.from_cookies = vec!["token".into()];
    let converted = self::provider(&provider).unwrap();
    assert!(converted.from_headers.is_empty() && converted.from_params.is_empty());
    provider.from_headers = vec![pb::JwtHeader { name: "x y".into(), ..Default::default() }];
    assert_eq!(self::provider(&provider).unwrap_err().field, "from_headers[0].name");
}

#[test]
fn unknown_names_and_dropped_conditions_are_refused() {
    let path = |message: JwtAuthentication| jwt_authn(&message).unwrap_err().field;
    let mut unknown = message();
    unknown.providers.clear();
    assert_eq!(path(unknown), "rules[0].requires.requires_any.requirements[0].provider_name");
    let mut named = message();
    named.rules[0].requirement_type = Some(RequirementType::RequirementName("r".into()));
    assert_eq!(path(named.clone()), "rules[0].requirement_name");
    named.requirement_map.insert("r".into(), requires(RequiresType::AllowMissingOrFailed(Empty {})));
    assert_eq!(jwt_authn(&named).unwrap().rules[0].requirement, JwtRequirement::AllowMissingOrFailed);
    let mut strict = message();
    strict.providers.insert("origins-0".into(), pb::JwtProvider { require_expiration: true, ..inline() });
    assert_eq!(path(strict), "providers[`origins-0`].require_expiration");
    let mut extract = message();
    extract.rules[0].requirement_type = Some(RequirementType::Requires(requires(
        RequiresType::ExtractOnlyWithoutValidation(pb::ExtractOnlyWithoutValidation::default()),
    )));
    assert_eq!(path(extract), "rules[0].requires.extract_only_without_validation");
}

#[test]
fn remote_keys() {
    let remote = |cluster: &str| {
        let uri = HttpUri {
            uri: "https://issuer.test/jwks.json".into(),
            http_upstream_type: Some(HttpUpstreamType::Cluster(cluster.into())),
            ..Default::default()
        };
        let source =
            JwksSourceSpecifier::RemoteJwks(pb::RemoteJwks { http_uri: Some(uri), ..Default::default() });
        provider(&pb::JwtProvider { jwks_source_specifier: Some(source), ..inline() })
    };
    let JwksSource::Remote { timeout, cache, .. } = remote("outbound|443||issuer.test").unwrap().jwks else {
        panic!("a remote source was expected")
    };
    assert_eq!((timeout, cache), (JWKS_TIMEOUT, JWKS_CACHE));
    assert_eq!(remote("").unwrap_err().field, "remote_jwks.http_uri.cluster");
    let none = pb::JwtProvider { jwks_source_specifier: None, ..inline() };
    assert_eq!(provider(&none).unwrap_err().field, "jwks_source_specifier");
}

#[test]
fn choices_of_routes() {
    let with = |specifier| choice(&pb::PerRouteConfig { requirement_specifier: Some(specifier) });
    assert_eq!(with(RequirementSpecifier::Disabled(true)), Ok(JwtRequirementChoice::Disabled));
    assert_eq!(with(RequirementSpecifier::Disabled(false)).unwrap_err().field, "disabled");
    let named = with(RequirementSpecifier::RequirementName("r".into()));
    assert_eq!(named, Ok(JwtRequirementChoice::Named("r".into())));
}
