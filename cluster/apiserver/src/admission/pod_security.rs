//! Pod Security: the `baseline` and `restricted` standards, enforced or warned about as a namespace's labels say.

use serde_json::Value;

use super::{Attributes, Operation};
use crate::{
    authn::tokens::lookup,
    context::Context,
    error::{ApiError, ApiResult},
    object::{integer, items, text},
};

const BASELINE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const RESTRICTED_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Enforces on pods; warns about pods and templates.
///
/// # Errors
/// 403 for a pod that violates the enforced standard.
pub(crate) fn check(ctx: &Context, attributes: &Attributes<'_>, object: &Value) -> ApiResult<()> {
    let kind = attributes.kind;
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    if !writes || !attributes.subresource.is_empty() {
        return Ok(());
    }
    let is_pod = kind.is("", "pods");
    let spec = match (is_pod, &*kind.group) {
        (true, _) => &object["spec"],
        (false, "apps") => &object["spec"]["template"]["spec"],
        _ => return Ok(()),
    };
    let Some(namespace) = lookup(&ctx.api, "namespaces", "", attributes.namespace) else { return Ok(()) };
    let level =
        |mode: &str| text(&namespace, &format!("/metadata/labels/pod-security.kubernetes.io~1{mode}"));
    if is_pod && let Some(violations) = violated(level("enforce"), spec) {
        let why = format!("violates PodSecurity \"{}:latest\": {violations}", level("enforce"));
        return Err(ApiError::forbidden(kind, attributes.name, &why));
    }
    if let Some(violations) = violated(level("warn"), spec) {
        ctx.warn(format!("would violate PodSecurity \"{}:latest\": {violations}", level("warn")));
    }
    Ok(())
}

/// What of a standard a pod spec violates, as one sentence.
fn violated(level: &str, spec: &Value) -> Option<String> {
    let mut found = Vec::new();
    if matches!(level, "baseline" | "restricted") {
        baseline(spec, level == "restricted", &mut found);
    }
    if level == "restricted" {
        restricted(spec, &mut found);
    }
    (!found.is_empty()).then(|| found.join(", "))
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["/initContainers", "/containers", "/ephemeralContainers"].into_iter().flat_map(|list| items(spec, list))
}

/// The containers that something is true of, as Kubernetes lists them.
fn naming(spec: &Value, wrong: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<String> =
        containers(spec).filter(|c| wrong(c)).map(|c| format!("{:?}", text(c, "/name"))).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("container {one}")),
        many => Some(format!("containers {}", many.join(", "))),
    }
}

fn baseline(spec: &Value, restricted: bool, found: &mut Vec<String>) {
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|f| spec[**f] == true)
        .map(|f| format!("{f}=true"))
        .collect();
    if !host.is_empty() {
        found.push(format!("host namespaces ({})", host.join(", ")));
    }
    if let Some(who) = naming(spec, |c| c["securityContext"]["privileged"] == true) {
        found.push(format!("privileged ({who} must not set securityContext.privileged=true)"));
    }
    let added = |c: &Value| -> Vec<String> {
        let list = items(c, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        list.filter(|name| !BASELINE_CAPABILITIES.contains(name)).map(|name| format!("{name:?}")).collect()
    };
    if !restricted && let Some(who) = naming(spec, |c| !added(c).is_empty()) {
        let all: Vec<String> = containers(spec).flat_map(added).collect();
        found.push(format!(
            "non-default capabilities ({who} must not include {} in securityContext.capabilities.add)",
            all.join(", ")
        ));
    }
    if !restricted && let Some(volumes) = volumes(spec, |source| source == "hostPath") {
        found.push(format!("hostPath volumes ({volumes})"));
    }
    let host_port = |c: &Value| items(c, "/ports").iter().any(|p| integer(p, "/hostPort").unwrap_or(0) != 0);
    if let Some(who) = naming(spec, host_port) {
        found.push(format!("hostPort ({who} uses a hostPort)"));
    }
    let proc_mount = |c: &Value| !matches!(text(c, "/securityContext/procMount"), "" | "Default");
    if let Some(who) = naming(spec, proc_mount) {
        found.push(format!("procMount ({who} must not set securityContext.procMount)"));
    }
    let unconfined = |owner: &Value| text(owner, "/securityContext/seccompProfile/type") == "Unconfined";
    if !restricted && (unconfined(spec) || containers(spec).any(unconfined)) {
        found.push(
            "seccompProfile (must not set securityContext.seccompProfile.type to \"Unconfined\")".to_owned(),
        );
    }
    let sysctls = items(spec, "/securityContext/sysctls").iter().map(|s| text(s, "/name"));
    let unsafe_ones: Vec<&str> = sysctls.filter(|name| !SAFE_SYSCTLS.contains(name)).collect();
    if !unsafe_ones.is_empty() {
        found.push(format!("forbidden sysctls ({})", unsafe_ones.join(", ")));
    }
}

fn volumes(spec: &Value, wrong: impl Fn(&str) -> bool) -> Option<String> {
    let list: Vec<String> = items(spec, "/volumes")
        .iter()
        .filter(|v| v.as_object().is_some_and(|map| map.keys().any(|key| key != "name" && wrong(key))))
        .map(|v| format!("{:?}", text(v, "/name")))
        .collect();
    (!list.is_empty())
        .then(|| format!("{} {}", if list.len() == 1 { "volume" } else { "volumes" }, list.join(", ")))
}

fn restricted(spec: &Value, found: &mut Vec<String>) {
    let context = |c: &Value, field: &str| c["securityContext"][field].clone();
    if let Some(who) = naming(spec, |c| context(c, "allowPrivilegeEscalation") != false) {
        found.push(format!("allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"));
    }
    let keeps = |c: &Value| !items(c, "/securityContext/capabilities/drop").iter().any(|d| d == "ALL");
    let adds =
        |c: &Value| items(c, "/securityContext/capabilities/add").iter().any(|a| a != "NET_BIND_SERVICE");
    if let Some(who) = naming(spec, |c| keeps(c) || adds(c)) {
        found.push(format!(
            "unrestricted capabilities ({who} must set securityContext.capabilities.drop=[\"ALL\"])"
        ));
    }
    if let Some(volumes) = volumes(spec, |source| !RESTRICTED_VOLUMES.contains(&source)) {
        found.push(format!("restricted volume types ({volumes} uses a restricted volume type)"));
    }
    let pod_non_root = spec["securityContext"]["runAsNonRoot"] == true;
    let root = |c: &Value| match context(c, "runAsNonRoot") {
        Value::Bool(non_root) => !non_root,
        _ => !pod_non_root,
    };
    if let Some(who) = naming(spec, root) {
        found.push(format!("runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"));
    }
    if spec["securityContext"]["runAsUser"] == 0 {
        found.push("runAsUser=0 (pod must not set runAsUser=0)".to_owned());
    } else if let Some(who) = naming(spec, |c| context(c, "runAsUser") == 0) {
        found.push(format!("runAsUser=0 ({who} must not set runAsUser=0)"));
    }
    let profile = |owner: &Value| text(owner, "/securityContext/seccompProfile/type").to_owned();
    let good = |profile: &str| matches!(profile, "RuntimeDefault" | "Localhost");
    let of_pod = profile(spec);
    let bare = |c: &Value| match profile(c).as_str() {
        "" => !good(&of_pod),
        own => !good(own),
    };
    if let Some(who) = naming(spec, bare) {
        found.push(format!(
            "seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bare_pod_is_baseline_and_not_restricted() {
        let spec = json!({"containers": [{"name": "a"}]});
        assert_eq!(violated("privileged", &spec), None);
        assert_eq!(violated("baseline", &spec), None);
        assert_eq!(
            violated("restricted", &spec).unwrap(),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
             container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let spec = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "initContainers": [{"name": "b", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
        assert_eq!(violated("restricted", &spec), None);
        let mut bad = spec.clone();
        bad["volumes"][0] = json!({"name": "tmp", "hostPath": {"path": "/"}});
        bad["hostNetwork"] = json!(true);
        let why = violated("baseline", &bad).unwrap();
        assert!(
            why.contains("host namespaces (hostNetwork=true)")
                && why.contains("hostPath volumes (volume \"tmp\")"),
            "{why}"
        );
    }
}
