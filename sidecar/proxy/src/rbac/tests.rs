use http::{HeaderMap, HeaderValue};
use sidecar_model::matcher::{HeaderValueMatch, StringPattern};
use sidecar_model::{HeaderKey, HeaderMatch};

use super::*;

const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage";

fn peer(uris: &[String]) -> Peer<'_> {
    Peer {
        uris,
        dns_names: &[],
        subject: "",
        authenticated: !uris.is_empty(),
        direct: "10.0.0.9".parse().unwrap(),
        source: "10.0.0.9".parse().unwrap(),
        remote: "10.0.0.9".parse().unwrap(),
        local: "10.0.0.1:9080".parse().unwrap(),
        server_name: "",
    }
}

fn rules(action: RbacAction, permission: Permission, principal: Principal) -> Rbac {
    let policy = RbacPolicy {
        name: "ns[d]-policy[p]-rule[0]".into(),
        permissions: vec![permission],
        principals: vec![principal],
    };
    Rbac { rules: Some(RbacRules { action, policies: vec![policy] }), ..Rbac::default() }
}

fn text(pattern: StringPattern) -> StringMatch {
    StringMatch { pattern, ignore_case: false }
}

fn verdict(rbac: &Rbac, uris: &[&str], method: &str, path: &str) -> Verdict {
    let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
    let mut headers = HeaderMap::new();
    headers.insert("x-role", HeaderValue::from_static("admin"));
    let view =
        RequestView { method, authority: "a", path, scheme: "http", headers: &headers, metadata: None };
    request(rbac, &peer(&uris), &view).verdict
}

#[test]
fn allow_denies_what_no_policy_names() {
    let get = Permission::And(vec![
        Permission::Header(HeaderMatch {
            key: HeaderKey::Method,
            value: HeaderValueMatch::String(StringMatch::exact("GET")),
            invert: false,
            treat_missing_as_empty: false,
        }),
        Permission::UrlPath(text(StringPattern::Prefix("/reviews".into()))),
    ]);
    let who = Principal::Authenticated(Some(StringMatch::exact(PRODUCTPAGE)));
    let rbac = rules(RbacAction::Allow, get, who);
    assert_eq!(verdict(&rbac, &[PRODUCTPAGE], "GET", "/reviews/0?x=/y"), Verdict::Allowed);
    assert_eq!(verdict(&rbac, &[PRODUCTPAGE], "POST", "/reviews/0"), Verdict::Denied("none".into()));
    assert_eq!(verdict(&rbac, &[PRODUCTPAGE], "GET", "/x?/reviews"), Verdict::Denied("none".into()));
    assert_eq!(
        verdict(&rbac, &["spiffe://cluster.local/ns/default/sa/other"], "GET", "/reviews/0"),
        Verdict::Denied("none".into())
    );
    assert_eq!(verdict(&rbac, &[], "GET", "/reviews/0"), Verdict::Denied("none".into()));
    let nothing =
        Rbac { rules: Some(RbacRules { action: RbacAction::Allow, policies: vec![] }), ..Rbac::default() };
    assert_eq!(verdict(&nothing, &[PRODUCTPAGE], "GET", "/"), Verdict::Denied("none".into()));
    assert_eq!(verdict(&Rbac::default(), &[], "GET", "/"), Verdict::Allowed);
}

#[test]
fn deny_names_the_policy_and_negations_hold_for_plain_connections() {
    let outside = Principal::Not(Box::new(Principal::Authenticated(Some(text(StringPattern::Regex(
        sidecar_model::Regex::new(".*/ns/default/.*").unwrap(),
    ))))));
    let rbac = rules(RbacAction::Deny, Permission::Any, outside);
    assert_eq!(verdict(&rbac, &[PRODUCTPAGE], "GET", "/"), Verdict::Allowed);
    assert_eq!(verdict(&rbac, &[], "GET", "/"), Verdict::Denied("ns[d]-policy[p]-rule[0]".into()));
    assert_eq!(connection(&rbac, &peer(&[])), Verdict::Denied("ns[d]-policy[p]-rule[0]".into()));
}

#[test]
fn http_conditions_never_match_a_plain_connection() {
    let path = Permission::UrlPath(text(StringPattern::Prefix("/".into())));
    assert_eq!(
        connection(&rules(RbacAction::Allow, path.clone(), Principal::Any), &peer(&[])),
        Verdict::Denied("none".into())
    );
    assert_eq!(connection(&rules(RbacAction::Deny, path, Principal::Any), &peer(&[])), Verdict::Allowed);
    let port = Permission::DestinationPortRange { start: 9080, end: 9081 };
    assert_eq!(
        connection(
            &rules(RbacAction::Allow, port, Principal::RemoteIp("10.0.0.0/8".parse().unwrap())),
            &peer(&[])
        ),
        Verdict::Allowed
    );
}

mod differential {
    use proptest::prelude::*;
    use sidecar_model::matcher::StringPattern;

    use super::*;

    const PATHS: [&str; 4] = ["/", "/a", "/a/b", "/private"];

    fn permissions() -> impl Strategy<Value = Permission> {
        let text = |pattern| Permission::UrlPath(StringMatch { pattern, ignore_case: false });
        let leaf = prop_oneof![
            Just(Permission::Any),
            prop::sample::select(&PATHS[..]).prop_map(move |it| text(StringPattern::Exact(it.into()))),
            prop::sample::select(&PATHS[..]).prop_map(move |it| text(StringPattern::Prefix(it.into()))),
            prop::sample::select(&PATHS[..]).prop_map(move |it| text(StringPattern::Suffix(it.into()))),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..3).prop_map(Permission::And),
                prop::collection::vec(inner.clone(), 1..3).prop_map(Permission::Or),
                inner.prop_map(|it| Permission::Not(Box::new(it))),
            ]
        })
    }

    /// The textbook's reading, of one path.
    fn holds(permission: &Permission, path: &str) -> bool {
        match permission {
            Permission::And(all) => all.iter().filter(|it| !holds(it, path)).count() == 0,
            Permission::Or(some) => some.iter().filter(|it| holds(it, path)).count() > 0,
            Permission::Not(one) => !holds(one, path),
            Permission::UrlPath(StringMatch { pattern: StringPattern::Exact(text), .. }) => path == &**text,
            Permission::UrlPath(StringMatch { pattern: StringPattern::Prefix(text), .. }) => {
                path.get(..text.len()) == Some(text)
            }
            Permission::UrlPath(StringMatch { pattern: StringPattern::Suffix(text), .. }) => {
                path.ends_with(&**text)
            }
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn verdicts_are_the_textbooks(tree in permissions(), path in prop::sample::select(&PATHS[..]), allow in any::<bool>()) {
            let action = if allow { RbacAction::Allow } else { RbacAction::Deny };
            let denied = verdict(&rules(action, tree.clone(), Principal::Any), &[], "GET", path) != Verdict::Allowed;
            prop_assert_eq!(denied, holds(&tree, path) != allow);
        }

        #[test]
        fn another_spelling_never_gets_more(tree in permissions(), path in prop::sample::select(&PATHS[1..]), allow in any::<bool>()) {
            let action = if allow { RbacAction::Allow } else { RbacAction::Deny };
            let rbac = rules(action, tree, Principal::Any);
            if verdict(&rbac, &[], "GET", path) != Verdict::Allowed {
                for other in [format!("/{path}"), format!("{path};x=y"), format!("/x/..;{path}"), path.replacen('/', "/%2e/", 1)] {
                    prop_assert!(verdict(&rbac, &[], "GET", &other) != Verdict::Allowed, "{}", other);
                }
            }
        }
    }
}
