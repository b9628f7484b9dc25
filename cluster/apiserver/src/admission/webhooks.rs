//! Webhooks: which apply to a request, and calling them in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base_tls::{Client, Material, Roots, Rotating, ServerCheck};
use cluster_machinery::LabelSelector;
use futures::future::join_all;
use serde_json::Value;

use super::{Attributes, review};
use crate::{
    api::Api,
    authn::tokens::lookup,
    config::Error,
    context::Context,
    crd::cel::Condition,
    error::{ApiError, ApiResult},
    follow::{self, Change},
    object::{self, integer, items, text},
};

const PREFIX: &str = "/registry/admissionregistration.k8s.io/";

/// The webhooks in force.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    mutating: ArcSwap<Vec<Arc<Hook>>>,
    validating: ArcSwap<Vec<Arc<Hook>>>,
}

/// Where a webhook listens.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Url(String),
    Service { namespace: String, name: String, path: String, port: i64 },
}

/// One webhook.
#[derive(Debug)]
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) client: Result<Client, String>,
    pub(crate) timeout: Duration,
    fails_open: bool,
    side_effects: String,
    reinvoked: bool,
    rules: Vec<Rule>,
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

// === impl Hook ===

impl Hook {
    fn read(hook: &Value) -> Self {
        let config = &hook["clientConfig"];
        let place = match config.get("service") {
            Some(service) => Place::Service {
                namespace: text(service, "/namespace").to_owned(),
                name: text(service, "/name").to_owned(),
                path: text(service, "/path").to_owned(),
                port: integer(service, "/port").unwrap_or(443),
            },
            None => Place::Url(text(config, "/url").to_owned()),
        };
        let strings = |rule: &Value, field: &str| {
            items(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let rules = items(hook, "/rules").iter().map(|rule| Rule {
            operations: strings(rule, "/operations"),
            groups: strings(rule, "/apiGroups"),
            versions: strings(rule, "/apiVersions"),
            resources: strings(rule, "/resources"),
            scope: text(rule, "/scope").to_owned(),
        });
        let seconds = integer(hook, "/timeoutSeconds").and_then(|s| u64::try_from(s).ok()).unwrap_or(10);
        Self {
            name: text(hook, "/name").to_owned(),
            place,
            client: client(text(config, "/caBundle")),
            timeout: Duration::from_secs(seconds),
            fails_open: hook["failurePolicy"] == "Ignore",
            side_effects: text(hook, "/sideEffects").to_owned(),
            reinvoked: hook["reinvocationPolicy"] == "IfNeeded",
            rules: rules.collect(),
            namespaces: selector(&hook["namespaceSelector"]),
            objects: selector(&hook["objectSelector"]),
            conditions: items(hook, "/matchConditions").iter().map(Condition::read).collect(),
        }
    }

    /// Whether the hook is about this request.
    fn applies(
        &self,
        ctx: &Context,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> ApiResult<bool> {
        if !self.rules.iter().any(|rule| rule.matches(attributes)) {
            return Ok(false);
        }
        if let Some(selector) = &self.namespaces
            && !namespace_matches(&ctx.api, selector, attributes, object)
        {
            return Ok(false);
        }
        if let Some(selector) = &self.objects {
            let matched = (object.is_object() && selector.matches_object(object))
                || old.is_some_and(|old| selector.matches_object(old));
            if !matched {
                return Ok(false);
            }
        }
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let request = review::request(ctx, attributes, object, old, "");
        for condition in &self.conditions {
            match condition.holds(object, old, &request["request"]) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(_) if self.fails_open => return Ok(false),
                Err(why) => return Err(ApiError::forbidden(attributes.kind, attributes.name, &why)),
            }
        }
        Ok(true)
    }
}

fn selector(value: &Value) -> Option<LabelSelector> {
    LabelSelector::from_object(value).ok().flatten().filter(|selector| !selector.is_empty())
}

fn client(bundle: &str) -> Result<Client, String> {
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bundle)
        .map_err(|e| e.to_string())?;
    let pem = String::from_utf8(pem).map_err(|e| e.to_string())?;
    let roots = Roots::from_pem(&pem).map_err(|e| e.to_string())?;
    let material = Material::trust(Some(roots)).map_err(|e| e.to_string())?;
    Ok(Client::new(&Rotating::new(material), ServerCheck::Name, &[b"http/1.1"]))
}

fn namespace_matches(
    api: &Api,
    selector: &LabelSelector,
    attributes: &Attributes<'_>,
    object: &Value,
) -> bool {
    if attributes.kind.is("", "namespaces") {
        return !object.is_object() || selector.matches_object(object);
    }
    if !attributes.kind.namespaced {
        return true;
    }
    lookup(api, "namespaces", "", attributes.namespace)
        .is_some_and(|namespace| selector.matches_object(&namespace))
}

// === impl Rule ===

impl Rule {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == "*" || item == value);
        let kind = attributes.kind;
        let scope = match self.scope.as_str() {
            "Namespaced" => kind.namespaced,
            "Cluster" => !kind.namespaced,
            _ => true,
        };
        // `matchPolicy: Equivalent` is the default: another version of the same resource is the same request.
        scope
            && has(&self.operations, attributes.operation.word())
            && has(&self.groups, &kind.group)
            && !self.versions.is_empty()
            && self.resources.iter().any(|resource| covers(resource, &kind.resource, attributes.subresource))
    }
}

fn covers(pattern: &str, resource: &str, subresource: &str) -> bool {
    let (main, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    let main_fits = main == "*" || main == resource;
    if pattern == "*/*" {
        return true;
    }
    main_fits && (sub == subresource || (sub == "*" && main != "*"))
}

/// Fills the tables and keeps them up to date.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn follow(api: &Arc<Api>) -> Result<(), Error> {
    let shared = Arc::downgrade(api);
    let mut configurations: BTreeMap<String, Vec<Arc<Hook>>> = BTreeMap::new();
    follow::follow(api, PREFIX, move |change| match change {
        Change::Reset => configurations.clear(),
        Change::Put(kv) => {
            if let Ok(object) = object::decode(kv) {
                let hooks =
                    items(&object, "/webhooks").iter().map(|hook| Arc::new(Hook::read(hook))).collect();
                configurations.insert(kv.key.to_string(), hooks);
            }
        }
        Change::Delete(kv) => drop(configurations.remove(&*kv.key)),
        Change::Settled => {
            let Some(api) = shared.upgrade() else { return };
            let of = |resource: &str| {
                let prefix = format!("{PREFIX}{resource}/");
                configurations
                    .iter()
                    .filter(|(key, _)| key.starts_with(&prefix))
                    .flat_map(|(_, h)| h.clone())
                    .collect()
            };
            api.webhooks.mutating.store(Arc::new(of("mutatingwebhookconfigurations")));
            api.webhooks.validating.store(Arc::new(of("validatingwebhookconfigurations")));
        }
    })
}

/// Questions, and the configurations themselves, are never sent to webhooks.
fn exempt(attributes: &Attributes<'_>) -> bool {
    matches!(
        &*attributes.kind.group,
        "admissionregistration.k8s.io" | "authentication.k8s.io" | "authorization.k8s.io"
    )
}

fn check_dry_run(ctx: &Context, hook: &Hook) -> ApiResult<()> {
    if ctx.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        return Err(ApiError::bad_request(format!(
            "admission webhook {:?} does not support dry run",
            hook.name
        )));
    }
    Ok(())
}

/// Calls the mutating webhooks one after the other; those that ask for it see later changes again.
///
/// # Errors
/// A refusal, or a failure of a webhook that fails closed.
pub(crate) async fn mutate(
    ctx: &Context,
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let hooks = ctx.api.webhooks.mutating.load_full();
    if exempt(attributes) || hooks.is_empty() {
        return Ok(());
    }
    let mut seen_by: Vec<(usize, Value)> = Vec::new();
    for round in 0..2 {
        for (at, hook) in hooks.iter().enumerate() {
            let before = seen_by.iter().find(|(index, _)| *index == at).map(|(_, value)| value);
            if round == 1 && (!hook.reinvoked || before.is_none_or(|value| value == object)) {
                continue;
            }
            if !hook.applies(ctx, attributes, object, old)? {
                continue;
            }
            check_dry_run(ctx, hook)?;
            match review::call(ctx, hook, attributes, object, old).await {
                Ok(answer) => {
                    answer.check(ctx, &hook.name)?;
                    answer.patch(&hook.name, object)?;
                }
                Err(why) if hook.fails_open => {
                    tracing::warn!(webhook = hook.name, why, "Webhook failed open")
                }
                Err(why) => return Err(failed(hook, &why)),
            }
            if hook.reinvoked {
                seen_by.retain(|(index, _)| *index != at);
                seen_by.push((at, object.clone()));
            }
        }
    }
    Ok(())
}

fn failed(hook: &Hook, why: &str) -> ApiError {
    ApiError::internal(format!("failed calling webhook {:?}: failed to call webhook: {why}", hook.name))
}

/// Calls the validating webhooks at the same time.
///
/// # Errors
/// The first refusal, or a failure of a webhook that fails closed.
pub(crate) async fn validate(
    ctx: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let hooks = ctx.api.webhooks.validating.load_full();
    if exempt(attributes) || hooks.is_empty() {
        return Ok(());
    }
    let mut applicable = Vec::new();
    for hook in hooks.iter() {
        if hook.applies(ctx, attributes, object, old)? {
            check_dry_run(ctx, hook)?;
            applicable.push(hook);
        }
    }
    let calls = applicable.iter().map(|hook| review::call(ctx, hook, attributes, object, old));
    for (hook, answer) in applicable.iter().zip(join_all(calls).await) {
        match answer {
            Ok(answer) => answer.check(ctx, &hook.name)?,
            Err(why) if hook.fails_open => tracing::warn!(webhook = hook.name, why, "Webhook failed open"),
            Err(why) => return Err(failed(hook, &why)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_patterns() {
        assert!(covers("pods", "pods", "") && !covers("pods", "pods", "status"));
        assert!(covers("pods/*", "pods", "exec") && covers("*/scale", "deployments", "scale"));
        assert!(covers("*", "pods", "") && !covers("*", "pods", "status") && covers("*/*", "pods", "status"));
    }
}
