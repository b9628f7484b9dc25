//! Values of rules as Envoy's matchers: exact, `prefix*`, `*suffix`, `*` for "present".

use meshd_model::MeshConfig;
use policies_api::names;
use policies_xds::core::CidrRange;
use policies_xds::matcher::{
    ListMatcher, MetadataMatcher, OrMatcher, PathMatcher, StringMatcher, ValueMatcher, list_matcher,
    metadata_matcher, path_matcher, string_matcher::MatchPattern, value_matcher,
};
use policies_xds::rbac::{Principal, permission, principal};
use policies_xds::route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use policies_xds::{any, core, uri_template};

use crate::filter::jwt;
use crate::proto::{cidr, regex, string_matcher};
use crate::route::action::escape;

const SCHEME: &str = "spiffe://";

/// A value with its wildcard; `before` goes in front of what is compared.
pub(super) fn pattern(value: &str, before: &str, ignore_case: bool) -> StringMatcher {
    let matched = if value == "*" {
        MatchPattern::SafeRegex(regex(".+"))
    } else if let Some(suffix) = value.strip_prefix('*') {
        MatchPattern::Suffix(suffix.to_owned())
    } else if let Some(prefix) = value.strip_suffix('*') {
        MatchPattern::Prefix(format!("{before}{prefix}"))
    } else {
        MatchPattern::Exact(format!("{before}{value}"))
    };
    let has_case = !matches!(matched, MatchPattern::SafeRegex(_));
    StringMatcher { ignore_case: ignore_case && has_case, ..string_matcher(matched) }
}

/// A peer by its identity without scheme; the mesh's own trust domain stands for its aliases as well.
pub(super) fn peer(mesh: &MeshConfig, value: &str) -> Principal {
    let own_domains = || std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let rest = value
        .split_once('/')
        .filter(|(domain, _)| *domain == names::TRUST_DOMAIN || own_domains().any(|it| it == domain));
    let mut spelled: Vec<String> = match rest {
        Some((_, rest)) => own_domains().map(|domain| format!("{domain}/{rest}")).collect(),
        None => vec![value.to_owned()],
    };
    spelled.dedup();
    let mut ids: Vec<Principal> = spelled
        .iter()
        .map(|it| Principal { identifier: Some(authenticated(pattern(it, SCHEME, false))) })
        .collect();
    match (ids.len(), ids.pop()) {
        (1, Some(single)) => single,
        (_, last) => {
            ids.extend(last);
            Principal { identifier: Some(principal::Identifier::OrIds(principal::Set { ids })) }
        }
    }
}

/// A peer by parts of its identity; `.*` stands for any, `*` in a part is a wildcard that does not cross a slash.
pub(super) fn peer_path(domain: &str, namespace: &str, account: &str) -> principal::Identifier {
    let part = |written: &str| match written {
        ".*" | "*" => "[^/]+".to_owned(),
        written => written.split('*').map(escape).collect::<Vec<_>>().join("[^/]*"),
    };
    let expression = format!("{SCHEME}{}/ns/{}/sa/{}", part(domain), part(namespace), part(account));
    authenticated(string_matcher(MatchPattern::SafeRegex(regex(expression))))
}

fn authenticated(name: StringMatcher) -> principal::Identifier {
    principal::Identifier::Authenticated(principal::Authenticated { principal_name: Some(name) })
}

/// An address or a network.
pub(super) fn range(value: &str) -> Option<CidrRange> {
    meshd_model::entry::network(value).map(|it| cidr(&it))
}

/// A header by value.
pub(super) fn header(name: &str, value: &str) -> HeaderMatcher {
    let specifier = match value {
        "*" => HeaderMatchSpecifier::PresentMatch(true),
        value => HeaderMatchSpecifier::StringMatch(pattern(value, "", false)),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// The authority, in any case.
pub(super) fn host(value: &str) -> HeaderMatcher {
    let specifier = match value {
        "*" => HeaderMatchSpecifier::PresentMatch(true),
        value => HeaderMatchSpecifier::StringMatch(pattern(value, "", true)),
    };
    HeaderMatcher {
        name: ":authority".to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

/// A path, with `{*}` and `{**}` as templates.
pub(super) fn path(value: &str) -> permission::Rule {
    if value.contains("{*}") || value.contains("{**}") {
        let template = value.replace("{**}", "**").replace("{*}", "*");
        return permission::Rule::UriTemplate(core::TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(any(&uri_template::UriTemplateMatchConfig { path_template: template })),
        });
    }
    permission::Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(pattern(value, "", false))) })
}

/// `issuer/subject` of the token.
pub(super) fn request_principal(value: &str) -> Principal {
    let ids = match value.rsplit_once('/') {
        _ if value == "*" => vec![claim(&["iss"], "*"), claim(&["sub"], "*")],
        Some((issuer, subject)) => vec![
            // A wildcard in front belongs to the issuer, one behind to the subject.
            claim(&["iss"], issuer),
            claim(&["sub"], subject),
        ],
        None if value.starts_with('*') => vec![claim(&["iss"], "*"), claim(&["sub"], value)],
        None => vec![claim(&["iss"], value), claim(&["sub"], "*")],
    };
    let ids = ids.into_iter().map(|it| Principal { identifier: Some(it) }).collect();
    Principal { identifier: Some(principal::Identifier::AndIds(principal::Set { ids })) }
}

/// A claim of the token, a string or a list of strings.
#[expect(deprecated, reason = "what Istio sends; Envoy and our sidecar read it")]
pub(super) fn claim(path: &[&str], value: &str) -> principal::Identifier {
    let single = ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::StringMatch(pattern(value, "", false))),
    };
    let one_of =
        ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(single.clone()))) };
    let listed =
        ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(one_of))) };
    let either = OrMatcher { value_matchers: vec![single, listed] };
    let segments = std::iter::once(jwt::PAYLOAD).chain(path.iter().copied());
    principal::Identifier::Metadata(MetadataMatcher {
        filter: jwt::FILTER.to_owned(),
        path: segments
            .map(|key| metadata_matcher::PathSegment {
                segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
            })
            .collect(),
        value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(either)) }),
        invert: false,
    })
}
