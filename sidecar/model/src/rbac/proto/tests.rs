use super::*;
use crate::fixtures::number;
use crate::matcher::StringPattern;
use policies_xds::any;
use policies_xds::core::{CidrRange, TypedExtensionConfig};
use policies_xds::matcher::{PathMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern};
use std::collections::HashMap;

fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.into())), ..Default::default() }
}

fn can(rule: Rule) -> rbac::Permission {
    rbac::Permission { rule: Some(rule) }
}

fn is(identifier: Identifier) -> rbac::Principal {
    rbac::Principal { identifier: Some(identifier) }
}

fn rbac_of(action: Action, policies: HashMap<String, rbac::Policy>) -> http_rbac::Rbac {
    let rules = rbac::Rbac { action: action.into(), policies, ..Default::default() };
    http_rbac::Rbac { rules: Some(rules), ..Default::default() }
}

fn policy_of(permissions: Vec<rbac::Permission>, principals: Vec<rbac::Principal>) -> rbac::Policy {
    rbac::Policy { permissions, principals, ..Default::default() }
}

fn error_of(permission: Rule) -> String {
    let policy = policy_of(vec![can(permission)], vec![is(Identifier::Any(true))]);
    http_rbac(&rbac_of(Action::Allow, [("p".to_owned(), policy)].into())).unwrap_err().field
}

#[test]
fn an_authorization_policy_as_istio_compiles_it() {
    let path = PathMatcher { rule: Some(path_matcher::Rule::Path(exact("/admin"))) };
    let not = rbac::Permission { rule: Some(Rule::UrlPath(path)) };
    let rules = permission_set(vec![can(Rule::NotRule(Box::new(not))), can(Rule::DestinationPort(9080))]);
    let name = rbac::principal::Authenticated {
        principal_name: Some(exact("spiffe://cluster.local/ns/default/sa/productpage")),
    };
    let ids = rbac::principal::Set { ids: vec![is(Identifier::Authenticated(name))] };
    let policy = policy_of(vec![can(Rule::AndRules(rules))], vec![is(Identifier::AndIds(ids))]);
    let any = policy_of(vec![can(Rule::Any(true))], vec![is(Identifier::Any(true))]);
    let policies = [
        ("ns[default]-policy[b]-rule[0]".to_owned(), policy),
        ("ns[default]-policy[a]-rule[0]".to_owned(), any),
    ];
    let converted = http_rbac(&rbac_of(Action::Deny, policies.into())).unwrap();
    let rules = converted.rules.unwrap();
    assert_eq!(rules.action, RbacAction::Deny);
    assert_eq!(&*rules.policies[0].name, "ns[default]-policy[a]-rule[0]", "in order of their names");
    let Permission::And(and) = &rules.policies[1].permissions[0] else { panic!("{rules:?}") };
    assert!(matches!(and[..], [Permission::Not(_), Permission::DestinationPort(9080)]));
    let Principal::And(and) = &rules.policies[1].principals[0] else { panic!("{rules:?}") };
    let Principal::Authenticated(Some(matcher)) = &and[0] else { panic!("{and:?}") };
    assert!(matches!(matcher.pattern, StringPattern::Exact(_)));
    assert!(converted.shadow_rules.is_none());
}

fn permission_set(rules: Vec<rbac::Permission>) -> rbac::permission::Set {
    rbac::permission::Set { rules }
}

#[test]
fn no_rules_and_rules_without_policies_differ() {
    assert!(http_rbac(&http_rbac::Rbac::default()).unwrap().rules.is_none());
    let deny_all = http_rbac(&rbac_of(Action::Allow, HashMap::new())).unwrap();
    assert!(deny_all.rules.unwrap().policies.is_empty(), "allows nobody");
}

#[test]
fn nothing_doubtful_is_let_in() {
    assert_eq!(error_of(Rule::Any(false)), "rules.policies[`p`].permissions[0].any");
    let empty = permission_set(vec![]);
    assert_eq!(error_of(Rule::OrRules(empty)), "rules.policies[`p`].permissions[0].or_rules.rules");
    assert_eq!(
        error_of(Rule::DestinationPort(65_536)),
        "rules.policies[`p`].permissions[0].destination_port"
    );
    let matcher = TypedExtensionConfig { name: "x".into(), typed_config: None };
    assert_eq!(error_of(Rule::Matcher(matcher)), "rules.policies[`p`].permissions[0].matcher");
    let range = CidrRange { address_prefix: "10.0.0.1".into(), prefix_len: number(33) };
    let field = error_of(Rule::DestinationIp(range));
    assert_eq!(field, "rules.policies[`p`].permissions[0].destination_ip.prefix_len");
    for (start, end) in [(80, 80), (-1, 80), (0, 65_537), (90, 80)] {
        let field = error_of(Rule::DestinationPortRange(Int32Range { start, end }));
        assert_eq!(field, "rules.policies[`p`].permissions[0].destination_port_range");
    }
    let nobody = policy_of(vec![can(Rule::Any(true))], vec![]);
    let error = http_rbac(&rbac_of(Action::Deny, [("p".to_owned(), nobody)].into())).unwrap_err();
    assert_eq!(error.field, "rules.policies[`p`].principals");
    let unset = policy_of(vec![rbac::Permission::default()], vec![is(Identifier::Any(true))]);
    let error = http_rbac(&rbac_of(Action::Deny, [("p".to_owned(), unset)].into())).unwrap_err();
    assert_eq!(error.field, "rules.policies[`p`].permissions[0].rule");
    let unknown = rbac::Rbac { action: 7, ..Default::default() };
    let error = network_rbac(&network_rbac::Rbac { rules: Some(unknown), ..Default::default() }).unwrap_err();
    assert_eq!(error.field, "rules.action");
}

#[test]
fn path_templates() {
    let config = any(&UriTemplateMatchConfig { path_template: "/api/*/items/**".into() });
    let extension = TypedExtensionConfig { name: "uri-template".into(), typed_config: Some(config) };
    let Permission::UrlTemplate(regex) = permission(&can(Rule::UriTemplate(extension))).unwrap() else {
        panic!("a template was expected")
    };
    assert!(regex.is_match("/api/v1/items/1/2") && !regex.is_match("/api/v1/x/items/1"));
}
