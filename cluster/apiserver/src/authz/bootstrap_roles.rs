//! The roles and bindings that every cluster has.

use serde_json::{Value, json};

/// Verbs, groups (`core` is the empty one, `url` means paths) and resources, each blank-separated.
type RuleRow = (&'static str, &'static str, &'static str);

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL_VERBS: &str = "create delete deletecollection get list patch update watch";

const APPS: &str =
    "deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status";

/// Cluster roles: name, label that aggregates it (or empty), rules.
const CLUSTER_ROLES: &[(&str, &str, &[RuleRow])] = &[
    ("cluster-admin", "", &[("*", "*", "*"), ("*", "url", "*")]),
    (
        "system:aggregate-to-view",
        "view",
        &[
            (
                READ,
                "core",
                "configmaps endpoints events namespaces pods pods/log pods/status serviceaccounts services services/status",
            ),
            (READ, "apps", APPS),
            (READ, "discovery.k8s.io", "endpointslices"),
            (READ, "coordination.k8s.io", "leases"),
            (READ, "events.k8s.io", "events"),
        ],
    ),
    (
        "system:aggregate-to-edit",
        "edit",
        &[
            ("get list watch", "core", "pods/attach pods/exec pods/portforward secrets"),
            ("impersonate", "core", "serviceaccounts"),
            (
                WRITE,
                "core",
                "configmaps endpoints events pods pods/attach pods/exec pods/portforward secrets serviceaccounts services",
            ),
            ("create", "core", "pods/eviction serviceaccounts/token"),
            (WRITE, "apps", "deployments deployments/scale replicasets replicasets/scale"),
            (ALL_VERBS, "coordination.k8s.io", "leases"),
            (WRITE, "discovery.k8s.io", "endpointslices"),
        ],
    ),
    (
        "system:aggregate-to-admin",
        "admin",
        &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (ALL_VERBS, "rbac.authorization.k8s.io", "roles rolebindings"),
        ],
    ),
    (
        "system:basic-user",
        "",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    (
        "system:discovery",
        "",
        &[(
            "get",
            "url",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    ("system:public-info-viewer", "", &[("get", "url", "/healthz /livez /readyz /version /version/")]),
    (
        "system:service-account-issuer-discovery",
        "",
        &[(
            "get",
            "url",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    (
        "system:auth-delegator",
        "",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    (
        "system:kubelet-api-admin",
        "",
        &[("*", "core", "nodes nodes/log nodes/metrics nodes/proxy nodes/stats")],
    ),
    (
        "system:node",
        "",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
            (READ, "core", "services configmaps secrets serviceaccounts pods nodes namespaces endpoints"),
            ("create patch update delete", "core", "nodes"),
            ("patch update", "core", "nodes/status pods/status"),
            ("create delete patch update", "core", "pods"),
            ("create", "core", "serviceaccounts/token pods/eviction"),
            ("create patch update", "core events.k8s.io", "events"),
            (ALL_VERBS, "coordination.k8s.io", "leases"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (READ, "node.k8s.io", "runtimeclasses"),
        ],
    ),
    (
        "system:node-proxier",
        "",
        &[
            (READ, "core", "services endpoints nodes"),
            (READ, "discovery.k8s.io", "endpointslices"),
            ("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    (
        "system:kube-scheduler",
        "",
        &[
            ("create patch update", "core events.k8s.io", "events"),
            (ALL_VERBS, "coordination.k8s.io", "leases"),
            (READ, "core", "nodes namespaces pods services"),
            ("delete", "core", "pods"),
            ("create", "core", "bindings pods/binding"),
            ("patch update", "core", "pods/status"),
            (READ, "apps", "replicasets"),
            (READ, "scheduling.k8s.io", "priorityclasses"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    // Our controllers share one identity: it deletes and reads anything, and writes what controllers write.
    (
        "system:kube-controller-manager",
        "",
        &[
            ("get list watch delete deletecollection patch update", "*", "*"),
            ("create patch update", "core events.k8s.io", "events"),
            (
                "create",
                "core",
                "configmaps endpoints pods secrets serviceaccounts serviceaccounts/token pods/eviction",
            ),
            ("create", "apps", "replicasets"),
            ("create", "discovery.k8s.io", "endpointslices"),
            ("create", "coordination.k8s.io", "leases"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            ("get", "url", "*"),
        ],
    ),
    (
        "system:monitoring",
        "",
        &[("get", "url", "/healthz /healthz/* /livez /livez/* /metrics /readyz /readyz/*")],
    ),
];

/// Roles that are sums of others: name, what it sums, the label that sums it.
const AGGREGATES: &[(&str, &[&str], &str)] = &[
    ("admin", &["admin", "edit", "view"], ""),
    ("edit", &["edit", "view"], "admin"),
    ("view", &["view"], "edit"),
];

/// Cluster role bindings: name, role, subject kind, subject name.
const BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", "Group", &["system:masters"]),
    ("system:basic-user", "system:basic-user", "Group", &["system:authenticated"]),
    ("system:discovery", "system:discovery", "Group", &["system:authenticated"]),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        "Group",
        &["system:authenticated", "system:unauthenticated"],
    ),
    (
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        "Group",
        &["system:serviceaccounts"],
    ),
    ("system:node", "system:node", "Group", &["system:nodes"]),
    ("system:node-proxier", "system:node-proxier", "User", &["system:kube-proxy"]),
    ("system:kube-scheduler", "system:kube-scheduler", "User", &["system:kube-scheduler"]),
    (
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        "User",
        &["system:kube-controller-manager"],
    ),
    ("system:monitoring", "system:monitoring", "Group", &["system:monitoring"]),
];

const LABEL: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Every object, as `(resource, object)`.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    let mut objects = Vec::new();
    for (name, aggregate, rules) in CLUSTER_ROLES {
        let mut role =
            json!({"metadata": metadata(name), "rules": rules.iter().map(rule).collect::<Vec<_>>()});
        if !aggregate.is_empty() {
            role["metadata"]["labels"][format!("{LABEL}{aggregate}")] = json!("true");
        }
        objects.push(("clusterroles", role));
    }
    for (name, sums, label) in AGGREGATES {
        let selectors: Vec<Value> =
            sums.iter().map(|sum| json!({"matchLabels": {format!("{LABEL}{sum}"): "true"}})).collect();
        let mut role = json!({"metadata": metadata(name), "rules": sum_rules(sums),
            "aggregationRule": {"clusterRoleSelectors": selectors}});
        if !label.is_empty() {
            role["metadata"]["labels"][format!("{LABEL}{label}")] = json!("true");
        }
        objects.push(("clusterroles", role));
    }
    for (name, role, kind, subjects) in BINDINGS {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|subject| json!({"kind": kind, "name": subject, "apiGroup": "rbac.authorization.k8s.io"}))
            .collect();
        let reference = json!({"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"});
        objects.push((
            "clusterrolebindings",
            json!({"metadata": metadata(name), "roleRef": reference, "subjects": subjects}),
        ));
    }
    objects
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
}

/// What `kubectl get clusterrole edit` shows.
fn sum_rules(sums: &[&str]) -> Vec<Value> {
    let roles = CLUSTER_ROLES.iter().filter(|(_, aggregate, _)| sums.contains(aggregate));
    roles.flat_map(|(_, _, rules)| rules.iter().map(rule)).collect()
}

fn rule((verbs, groups, resources): &RuleRow) -> Value {
    let words = |text: &str| -> Vec<String> {
        text.split_whitespace()
            .map(|word| if word == "core" { String::new() } else { word.to_owned() })
            .collect()
    };
    if *groups == "url" {
        return json!({"verbs": words(verbs), "nonResourceURLs": words(resources)});
    }
    json!({"verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources)})
}
