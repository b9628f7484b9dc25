//! The built-in plugins: namespaces must live, pods get an account, a priority and tolerations.

use rand::Rng as _;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::{
    api::Api,
    authn::tokens::lookup,
    context::Context,
    error::{ApiError, ApiResult},
    kinds::strategy::child_list,
    object::{self, default, integer, items, items_mut, name, text},
};

/// Where pods find their token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long pods stay on a node that is lost (Kubernetes: 300 s).
const TOLERATION_SECONDS: i64 = 300;

/// Runs all plugins in Kubernetes' order.
///
/// # Errors
/// 403 and 404.
pub(crate) fn run(ctx: &Context, attributes: &Attributes<'_>, object: &mut Value) -> ApiResult<()> {
    if attributes.operation != Operation::Create {
        return Ok(());
    }
    namespace_lives(ctx, attributes)?;
    if attributes.kind.is("", "pods") && attributes.subresource.is_empty() {
        service_account(&ctx.api, attributes, object)?;
        priority(&ctx.api, attributes, object)?;
        tolerations(object);
    }
    Ok(())
}

fn namespace_lives(ctx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
    if !attributes.kind.namespaced {
        return Ok(());
    }
    let namespaces = ctx.api.kinds.get("", "v1", "namespaces").ok_or_else(ApiError::page_not_found)?;
    let Some(namespace) = lookup(&ctx.api, "namespaces", "", attributes.namespace) else {
        return Err(ApiError::not_found(&namespaces, attributes.namespace));
    };
    if object::is_deleting(&namespace) {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            attributes.namespace
        );
        let message = format!("namespace {} is being terminated", attributes.namespace);
        let error = ApiError::forbidden(attributes.kind, attributes.name, &why);
        return Err(error.cause("NamespaceTerminating", &message, "metadata.namespace"));
    }
    Ok(())
}

fn service_account(api: &Api, attributes: &Attributes<'_>, pod: &mut Value) -> ApiResult<()> {
    let spec = &mut pod["spec"];
    if !spec.is_object() {
        return Ok(());
    }
    default(spec, "serviceAccountName", json!("default"));
    let account_name = text(spec, "/serviceAccountName").to_owned();
    spec["serviceAccount"] = json!(account_name);
    let Some(account) = lookup(api, "serviceaccounts", attributes.namespace, &account_name) else {
        let why = format!(
            "error looking up service account {}/{account_name}: serviceaccount {account_name:?} not found",
            attributes.namespace
        );
        return Err(ApiError::forbidden(attributes.kind, attributes.name, &why));
    };
    if items(spec, "/imagePullSecrets").is_empty() && !items(&account, "/imagePullSecrets").is_empty() {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let mounts = spec
        .get("automountServiceAccountToken")
        .and_then(Value::as_bool)
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if mounts {
        mount_token(spec);
    }
    Ok(())
}

/// Adds the projected volume and its mounts where a container has none there.
fn mount_token(spec: &mut Value) {
    let existing =
        items(spec, "/volumes").iter().map(|v| text(v, "/name")).find(|n| n.starts_with("kube-api-access-"));
    let volume = match existing {
        Some(name) => name.to_owned(),
        None => {
            let mut rng = rand::rng();
            let suffix: String =
                (0..5).map(|_| char::from(b"bcdfghjklmnpqrstvwxz2456789"[rng.random_range(0..27)])).collect();
            format!("kube-api-access-{suffix}")
        }
    };
    let is_new = existing.is_none();
    let mut used = false;
    for list in ["/initContainers", "/containers"] {
        for container in items_mut(spec, list) {
            if items(container, "/volumeMounts").iter().any(|m| m["mountPath"] == TOKEN_PATH) {
                continue;
            }
            let mount = json!({"name": volume, "mountPath": TOKEN_PATH, "readOnly": true});
            child_list(container, "volumeMounts").push(mount);
            used = true;
        }
    }
    if used && is_new {
        child_list(spec, "volumes").push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

fn priority(api: &Api, attributes: &Attributes<'_>, pod: &mut Value) -> ApiResult<()> {
    let wanted = text(pod, "/spec/priorityClassName").to_owned();
    let Some(kind) = api.kinds.get("scheduling.k8s.io", "v1", "priorityclasses") else { return Ok(()) };
    let class = if wanted.is_empty() {
        let page = api.store.list(&kind.prefix(), None, 0, None)?;
        let mut classes = page.items.iter().filter_map(|kv| object::decode(kv).ok());
        classes.find(|class| class["globalDefault"] == true)
    } else {
        let found = api.store.get(&kind.key("", &wanted)).0.and_then(|kv| object::decode(&kv).ok());
        if found.is_none() {
            let why = format!("no PriorityClass with name {wanted} was found");
            return Err(ApiError::forbidden(attributes.kind, attributes.name, &why));
        }
        found
    };
    let spec = &mut pod["spec"];
    if !spec.is_object() {
        return Ok(());
    }
    if let Some(class) = &class {
        spec["priorityClassName"] = json!(name(class));
    }
    let value = class.as_ref().and_then(|class| integer(class, "/value")).unwrap_or(0);
    spec["priority"] = json!(value);
    let policy = class.as_ref().map_or("", |class| text(class, "/preemptionPolicy"));
    let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
    default(spec, "preemptionPolicy", json!(policy));
    Ok(())
}

fn tolerations(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = items(pod, "/spec/tolerations").iter().any(|t| {
            let (k, effect) = (text(t, "/key"), text(t, "/effect"));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated && pod["spec"].is_object() {
            child_list(&mut pod["spec"], "tolerations").push(json!({"key": key, "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_mounted_once() {
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}]});
        mount_token(&mut spec);
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], TOKEN_PATH);
        assert_eq!(items(&spec, "/containers/1/volumeMounts").len(), 1);
        assert_eq!(items(&spec, "/volumes").len(), 1);
        let once = spec.clone();
        mount_token(&mut spec);
        assert_eq!(spec, once);
    }
}
