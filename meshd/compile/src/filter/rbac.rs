//! Policies of access as filters. What cannot be expressed never lets a request in: it drops an allowing rule and widens a refusing one.

mod attribute;
mod matchers;

use std::collections::BTreeMap;

use meshd_model::Config;
use meshd_model::select::security::{self, AccessPolicies};
use policies_api::AuthorizationPolicy;
use policies_api::authorization_policy::Rule;
use policies_xds::hcm::HttpFilter;
use policies_xds::rbac::{self as proto, Permission, Policy, Principal, permission, principal, rbac};
use policies_xds::{any, http_rbac, listener, network_rbac};
use prost::Message;

use super::ext_authz;
use crate::proto::{any_of, encode_with_map};
use crate::view::View;

/// Names of the filters of each group: equal names in one chain could not be told apart by routes.
const HTTP_FILTERS: [&str; 3] =
    ["envoy.filters.http.rbac.audit", "envoy.filters.http.rbac.deny", "envoy.filters.http.rbac"];
const NETWORK_FILTERS: [&str; 3] =
    ["envoy.filters.network.rbac.audit", "envoy.filters.network.rbac.deny", "envoy.filters.network.rbac"];
const CUSTOM_HTTP_FILTER: &str = "envoy.filters.http.rbac.custom";
const CUSTOM_NETWORK_FILTER: &str = "envoy.filters.network.rbac.custom";
const EXT_AUTHZ_FILTER: &str = "envoy.filters.http.ext_authz";
/// Behind the names of rules that are refused for want of a provider, as Istio has it.
const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";
/// Field numbers of the messages whose maps are encoded in order.
const POLICIES_FIELD: u32 = 2;
const HTTP_RULES_FIELD: u32 = 1;
const HTTP_SHADOW_FIELD: u32 = 2;
const NETWORK_RULES_FIELD: u32 = 1;
const NETWORK_SHADOW_FIELD: u32 = 2;

/// What the filter can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Http,
    Tcp,
}

/// Whether a rule lets in or keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
    /// Neither: matches are noted.
    Audit,
}

/// One filter's worth of rules.
struct Rules {
    effect: Effect,
    enforced: Option<Vec<(String, Policy)>>,
    shadow: Option<Vec<(String, Policy)>>,
}

/// HTTP filters of the action `CUSTOM`: for each provider one that notes what its rules select, and one that asks. What is meant for a
/// provider that there is not is refused.
pub(crate) fn custom_filters(view: &View<'_>) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    for (provider, policies) in custom(view) {
        let suffix =
            |name: &str| if filters_of_one(view) { name.to_owned() } else { format!("{name}.{provider}") };
        let Some(service) = ext_authz::config(view, provider) else {
            filters.extend(bad_custom(view, &policies, Layer::Http).map(|rules| {
                let bytes = encode(&http_rbac::Rbac::default(), &rules, HTTP_RULES_FIELD, HTTP_SHADOW_FIELD);
                super::http(&suffix(CUSTOM_HTTP_FILTER), any_of::<http_rbac::Rbac>(bytes))
            }));
            continue;
        };
        let mut selecting: Vec<(String, Policy)> = Vec::new();
        for policy in &policies {
            let rules = of_policy(view, Effect::Deny, policy, Layer::Http).into_iter();
            selecting.extend(rules.map(|(name, rule)| (ext_authz::rule_name(provider, &name), rule)));
        }
        selecting.sort_by(|(a, _), (b, _)| a.cmp(b));
        let base = http_rbac::Rbac {
            shadow_rules_stat_prefix: ext_authz::SHADOW_PREFIX.to_owned(),
            ..Default::default()
        };
        let rules = Rules { effect: Effect::Deny, enforced: None, shadow: Some(selecting) };
        let bytes = encode(&base, &rules, HTTP_RULES_FIELD, HTTP_SHADOW_FIELD);
        filters.push(super::http(&suffix(CUSTOM_HTTP_FILTER), any_of::<http_rbac::Rbac>(bytes)));
        filters.push(super::http(&suffix(EXT_AUTHZ_FILTER), any(&service)));
    }
    filters
}

/// Policies of the action `CUSTOM` by provider, in the order of its name. One that is only tried does nothing: a service cannot be asked
/// without effect.
fn custom<'a>(view: &View<'a>) -> BTreeMap<&'a str, Vec<&'a Config<AuthorizationPolicy>>> {
    let policies = security::access_policies(view.snapshot, &view.proxy.namespace, &view.proxy.labels).custom;
    let mut by_provider: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for policy in policies.into_iter().filter(|it| !it.dry_run) {
        let provider = policy.spec.provider.as_ref().map_or("", |it| it.name.as_str());
        by_provider.entry(provider).or_default().push(policy);
    }
    by_provider
}

fn filters_of_one(view: &View<'_>) -> bool {
    custom(view).len() == 1
}

/// What the rules of `CUSTOM` policies select, refused.
fn bad_custom(view: &View<'_>, policies: &[&Config<AuthorizationPolicy>], layer: Layer) -> Option<Rules> {
    let all = policies.iter().flat_map(|it| of_policy(view, Effect::Deny, it, layer));
    let mut enforced: Vec<(String, Policy)> = all.map(|(name, it)| (name + BAD_CUSTOM, it)).collect();
    enforced.sort_by(|(a, _), (b, _)| a.cmp(b));
    (!enforced.is_empty()).then_some(Rules { effect: Effect::Deny, enforced: Some(enforced), shadow: None })
}

/// HTTP filters of a pod after those of `CUSTOM`, refusing ones before allowing ones.
pub(crate) fn http_filters(view: &View<'_>) -> Vec<HttpFilter> {
    rules(view, Layer::Http)
        .into_iter()
        .map(|(name, rules)| {
            let base =
                http_rbac::Rbac { shadow_rules_stat_prefix: shadow_prefix(&rules), ..Default::default() };
            let bytes = encode(&base, &rules, HTTP_RULES_FIELD, HTTP_SHADOW_FIELD);
            super::http(HTTP_FILTERS[name], any_of::<http_rbac::Rbac>(bytes))
        })
        .collect()
}

/// Network filters of a pod, refusing ones first. No service is asked about bytes: what `CUSTOM` selects is refused.
pub(crate) fn network_filters(view: &View<'_>) -> Vec<listener::Filter> {
    let all: Vec<_> = custom(view).into_values().flatten().collect();
    let bad = bad_custom(view, &all, Layer::Tcp).map(|rules| (CUSTOM_NETWORK_FILTER, rules));
    let others = rules(view, Layer::Tcp).into_iter().map(|(name, rules)| (NETWORK_FILTERS[name], rules));
    bad.into_iter()
        .chain(others)
        .map(|(name, rules)| {
            let base = network_rbac::Rbac {
                stat_prefix: "tcp.".to_owned(),
                shadow_rules_stat_prefix: shadow_prefix(&rules),
                ..Default::default()
            };
            let bytes = encode(&base, &rules, NETWORK_RULES_FIELD, NETWORK_SHADOW_FIELD);
            super::network(name, any_of::<network_rbac::Rbac>(bytes))
        })
        .collect()
}

fn shadow_prefix(rules: &Rules) -> String {
    match (&rules.shadow, rules.effect) {
        (None, _) | (Some(_), Effect::Audit) => String::new(),
        (Some(_), Effect::Allow) => "istio_dry_run_allow_".to_owned(),
        (Some(_), Effect::Deny) => "istio_dry_run_deny_".to_owned(),
    }
}

fn encode(base: &impl Message, rules: &Rules, enforced_field: u32, shadow_field: u32) -> Vec<u8> {
    let mut bytes = base.encode_to_vec();
    for (field, policies) in [(enforced_field, &rules.enforced), (shadow_field, &rules.shadow)] {
        let Some(policies) = policies else { continue };
        let action = match rules.effect {
            Effect::Allow => rbac::Action::Allow,
            Effect::Deny => rbac::Action::Deny,
            Effect::Audit => rbac::Action::Log,
        };
        let empty = proto::Rbac { action: action.into(), ..Default::default() };
        let encoded = encode_with_map(&empty, POLICIES_FIELD, policies);
        prost::encoding::bytes::encode(field, &encoded, &mut bytes);
    }
    bytes
}

/// Rules with the index of their group.
fn rules(view: &View<'_>, layer: Layer) -> Vec<(usize, Rules)> {
    let AccessPolicies { audit, deny, allow, .. } =
        security::access_policies(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    let groups = [(Effect::Audit, audit), (Effect::Deny, deny), (Effect::Allow, allow)];
    let compiled = groups.into_iter().map(|(effect, policies)| group(view, effect, &policies, layer));
    compiled.enumerate().filter_map(|(index, rules)| Some((index, rules?))).collect()
}

fn group(
    view: &View<'_>,
    effect: Effect,
    policies: &[&Config<AuthorizationPolicy>],
    layer: Layer,
) -> Option<Rules> {
    let compile = |dry_run: bool| {
        let chosen: Vec<_> = policies.iter().filter(|it| it.dry_run == dry_run).collect();
        let mut compiled: Vec<(String, Policy)> =
            chosen.iter().flat_map(|it| of_policy(view, effect, it, layer)).collect();
        compiled.sort_by(|(a, _), (b, _)| a.cmp(b));
        // An allowing filter without policies refuses everything, which is what an ALLOW policy without rules asks for.
        let is_needed = match effect {
            Effect::Allow => !chosen.is_empty(),
            Effect::Deny | Effect::Audit => !compiled.is_empty(),
        };
        is_needed.then_some(compiled)
    };
    let (enforced, shadow) = (compile(false), compile(true));
    (enforced.is_some() || shadow.is_some()).then_some(Rules { effect, enforced, shadow })
}

fn of_policy(
    view: &View<'_>,
    effect: Effect,
    policy: &Config<AuthorizationPolicy>,
    layer: Layer,
) -> Vec<(String, Policy)> {
    let compiled = policy.spec.rules.iter().enumerate().filter_map(|(index, rule)| {
        let name = format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
        of_rule(view, effect, &policy.namespace, rule, layer).map(|it| (name, it))
    });
    compiled.collect()
}

/// None when the rule can never match.
fn of_rule(view: &View<'_>, effect: Effect, namespace: &str, rule: &Rule, layer: Layer) -> Option<Policy> {
    let scope = attribute::Scope { mesh: view.mesh, namespace, layer, effect };
    let mut common_permissions = Vec::new();
    let mut common_principals = Vec::new();
    for condition in &rule.when {
        match scope.condition(condition) {
            Ok(attribute::Matcher::Permission(it)) => common_permissions.push(it),
            Ok(attribute::Matcher::Principal(it)) => common_principals.push(it),
            Err(attribute::NotExpressible) if effect == Effect::Deny => {}
            Err(attribute::NotExpressible) => return None,
        }
    }
    let mut permissions = Vec::new();
    for to in &rule.to {
        if let Ok(found) = scope.operation(&to.operation) {
            permissions
                .push(all_permissions(found.into_iter().chain(common_permissions.iter().cloned()).collect()));
        }
    }
    let mut principals = Vec::new();
    for from in &rule.from {
        if let Ok(found) = scope.source(&from.source) {
            principals
                .push(all_principals(found.into_iter().chain(common_principals.iter().cloned()).collect()));
        }
    }
    if rule.to.is_empty() {
        permissions.push(all_permissions(common_permissions));
    }
    if rule.from.is_empty() {
        principals.push(all_principals(common_principals));
    }
    (!permissions.is_empty() && !principals.is_empty()).then(|| Policy {
        permissions,
        principals,
        ..Default::default()
    })
}

fn all_permissions(rules: Vec<Permission>) -> Permission {
    let rule = if rules.is_empty() {
        permission::Rule::Any(true)
    } else {
        permission::Rule::AndRules(permission::Set { rules })
    };
    Permission { rule: Some(rule) }
}

fn all_principals(ids: Vec<Principal>) -> Principal {
    let identifier = if ids.is_empty() {
        principal::Identifier::Any(true)
    } else {
        principal::Identifier::AndIds(principal::Set { ids })
    };
    Principal { identifier: Some(identifier) }
}
