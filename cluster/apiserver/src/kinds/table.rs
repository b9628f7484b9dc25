//! The rows of built-in kinds. Adding a kind is adding a row.

use std::sync::Arc;

use super::{
    Kind, Name, Subresource,
    rbac::{Rbac, RoleBindings},
    strategy::{
        ConfigData, CustomDefinitions, Events, Namespaces, Plain, Secrets, ServiceAccounts, Services,
        Strategy, Webhooks,
    },
    type_of,
    workload::{Deployments, Nodes, Pods, ReplicaSets},
};
use crate::printers::{self, Cells};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];

struct Row {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    kind: &'static str,
    singular: &'static str,
    /// Short names, blank-separated.
    short: &'static str,
    categories: &'static str,
    namespaced: bool,
    generation: bool,
    facts: &'static str,
    verbs: &'static [&'static str],
    subresources: &'static [Sub],
    strategy: fn() -> Arc<dyn Strategy>,
    cells: Cells,
}

/// A subresource: name, group, version, kind (empty for the object's own) and verbs.
type Sub = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const STATUS: Sub = ("status", "", "", "", READ_WRITE);
const SCALE: Sub = ("scale", "autoscaling", "v1", "Scale", READ_WRITE);

const BASE: Row = Row {
    group: "",
    version: "v1",
    resource: "",
    kind: "",
    singular: "",
    short: "",
    categories: "",
    namespaced: true,
    generation: false,
    facts: "",
    verbs: ALL,
    subresources: &[],
    strategy: || Arc::new(Plain),
    cells: printers::DEFAULT,
};

const CLUSTER: Row = Row { namespaced: false, ..BASE };
const RBAC: Row = Row { group: "rbac.authorization.k8s.io", strategy: || Arc::new(Rbac), ..BASE };
const WEBHOOKS: Row = Row {
    group: "admissionregistration.k8s.io",
    categories: "api-extensions",
    generation: true,
    strategy: || Arc::new(Webhooks),
    cells: printers::WEBHOOKS,
    ..CLUSTER
};
const REVIEW: Row = Row { verbs: CREATE, ..CLUSTER };

const CORE: &[Row] = &[
    Row {
        resource: "bindings",
        kind: "Binding",
        singular: "binding",
        facts: "core.v1.Binding",
        verbs: CREATE,
        ..BASE
    },
    Row {
        resource: "configmaps",
        kind: "ConfigMap",
        singular: "configmap",
        short: "cm",
        facts: "core.v1.ConfigMap",
        strategy: || Arc::new(ConfigData),
        cells: printers::CONFIG_MAPS,
        ..BASE
    },
    Row {
        resource: "endpoints",
        kind: "Endpoints",
        singular: "endpoints",
        short: "ep",
        facts: "core.v1.Endpoints",
        cells: printers::ENDPOINTS,
        ..BASE
    },
    Row {
        resource: "events",
        kind: "Event",
        singular: "event",
        short: "ev",
        facts: "core.v1.Event",
        strategy: || Arc::new(Events),
        cells: printers::EVENTS,
        ..BASE
    },
    Row {
        resource: "namespaces",
        kind: "Namespace",
        singular: "namespace",
        short: "ns",
        facts: "core.v1.Namespace",
        verbs: NO_COLLECTION,
        subresources: &[("finalize", "", "", "", &["update"]), STATUS],
        strategy: || Arc::new(Namespaces),
        cells: printers::NAMESPACES,
        ..CLUSTER
    },
    Row {
        resource: "nodes",
        kind: "Node",
        singular: "node",
        short: "no",
        facts: "core.v1.Node",
        subresources: &[STATUS],
        strategy: || Arc::new(Nodes),
        cells: printers::NODES,
        ..CLUSTER
    },
    Row {
        resource: "pods",
        kind: "Pod",
        singular: "pod",
        short: "po",
        categories: "all",
        generation: true,
        facts: "core.v1.Pod",
        subresources: &[
            ("attach", "", "v1", "PodAttachOptions", CONNECT),
            ("binding", "", "v1", "Binding", CREATE),
            ("eviction", "policy", "v1", "Eviction", CREATE),
            ("exec", "", "v1", "PodExecOptions", CONNECT),
            ("log", "", "", "", &["get"]),
            ("portforward", "", "v1", "PodPortForwardOptions", CONNECT),
            ("proxy", "", "v1", "PodProxyOptions", &["create", "delete", "get", "patch", "update"]),
            STATUS,
        ],
        strategy: || Arc::new(Pods),
        cells: printers::PODS,
        ..BASE
    },
    Row {
        resource: "secrets",
        kind: "Secret",
        singular: "secret",
        facts: "core.v1.Secret",
        strategy: || Arc::new(Secrets),
        cells: printers::SECRETS,
        ..BASE
    },
    Row {
        resource: "serviceaccounts",
        kind: "ServiceAccount",
        singular: "serviceaccount",
        short: "sa",
        facts: "core.v1.ServiceAccount",
        subresources: &[("token", "authentication.k8s.io", "v1", "TokenRequest", CREATE)],
        strategy: || Arc::new(ServiceAccounts),
        cells: printers::SERVICE_ACCOUNTS,
        ..BASE
    },
    Row {
        resource: "services",
        kind: "Service",
        singular: "service",
        short: "svc",
        categories: "all",
        facts: "core.v1.Service",
        subresources: &[STATUS],
        strategy: || Arc::new(Services),
        cells: printers::SERVICES,
        ..BASE
    },
];

const GROUPS: &[Row] = &[
    Row {
        group: "apps",
        resource: "deployments",
        kind: "Deployment",
        singular: "deployment",
        short: "deploy",
        categories: "all",
        generation: true,
        facts: "apps.v1.Deployment",
        subresources: &[SCALE, STATUS],
        strategy: || Arc::new(Deployments),
        cells: printers::DEPLOYMENTS,
        ..BASE
    },
    Row {
        group: "apps",
        resource: "replicasets",
        kind: "ReplicaSet",
        singular: "replicaset",
        short: "rs",
        categories: "all",
        generation: true,
        facts: "apps.v1.ReplicaSet",
        subresources: &[SCALE, STATUS],
        strategy: || Arc::new(ReplicaSets),
        cells: printers::REPLICA_SETS,
        ..BASE
    },
    Row {
        group: "events.k8s.io",
        resource: "events",
        kind: "Event",
        singular: "event",
        short: "ev",
        facts: "events.v1.Event",
        strategy: || Arc::new(Events),
        cells: printers::EVENTS,
        ..BASE
    },
    Row {
        group: "authentication.k8s.io",
        resource: "selfsubjectreviews",
        kind: "SelfSubjectReview",
        singular: "selfsubjectreview",
        facts: "authentication.v1.SelfSubjectReview",
        ..REVIEW
    },
    Row {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        kind: "TokenReview",
        singular: "tokenreview",
        facts: "authentication.v1.TokenReview",
        ..REVIEW
    },
    Row {
        group: "authorization.k8s.io",
        resource: "localsubjectaccessreviews",
        kind: "LocalSubjectAccessReview",
        singular: "localsubjectaccessreview",
        facts: "authorization.v1.LocalSubjectAccessReview",
        namespaced: true,
        ..REVIEW
    },
    Row {
        group: "authorization.k8s.io",
        resource: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
        singular: "selfsubjectaccessreview",
        facts: "authorization.v1.SelfSubjectAccessReview",
        ..REVIEW
    },
    Row {
        group: "authorization.k8s.io",
        resource: "selfsubjectrulesreviews",
        kind: "SelfSubjectRulesReview",
        singular: "selfsubjectrulesreview",
        facts: "authorization.v1.SelfSubjectRulesReview",
        ..REVIEW
    },
    Row {
        group: "authorization.k8s.io",
        resource: "subjectaccessreviews",
        kind: "SubjectAccessReview",
        singular: "subjectaccessreview",
        facts: "authorization.v1.SubjectAccessReview",
        ..REVIEW
    },
    Row {
        resource: "clusterrolebindings",
        kind: "ClusterRoleBinding",
        singular: "clusterrolebinding",
        facts: "rbac.v1.ClusterRoleBinding",
        namespaced: false,
        strategy: || Arc::new(RoleBindings),
        cells: printers::CLUSTER_ROLE_BINDINGS,
        ..RBAC
    },
    Row {
        resource: "clusterroles",
        kind: "ClusterRole",
        singular: "clusterrole",
        facts: "rbac.v1.ClusterRole",
        namespaced: false,
        cells: printers::ROLES,
        ..RBAC
    },
    Row {
        resource: "rolebindings",
        kind: "RoleBinding",
        singular: "rolebinding",
        facts: "rbac.v1.RoleBinding",
        strategy: || Arc::new(RoleBindings),
        cells: printers::ROLE_BINDINGS,
        ..RBAC
    },
    Row {
        resource: "roles",
        kind: "Role",
        singular: "role",
        facts: "rbac.v1.Role",
        cells: printers::ROLES,
        ..RBAC
    },
    Row {
        resource: "mutatingwebhookconfigurations",
        kind: "MutatingWebhookConfiguration",
        singular: "mutatingwebhookconfiguration",
        facts: "admissionregistration.v1.MutatingWebhookConfiguration",
        ..WEBHOOKS
    },
    Row {
        resource: "validatingwebhookconfigurations",
        kind: "ValidatingWebhookConfiguration",
        singular: "validatingwebhookconfiguration",
        facts: "admissionregistration.v1.ValidatingWebhookConfiguration",
        ..WEBHOOKS
    },
    Row {
        group: "apiextensions.k8s.io",
        resource: "customresourcedefinitions",
        kind: "CustomResourceDefinition",
        singular: "customresourcedefinition",
        short: "crd crds",
        categories: "api-extensions",
        generation: true,
        facts: "apiextensions.v1.CustomResourceDefinition",
        subresources: &[STATUS],
        strategy: || Arc::new(CustomDefinitions),
        cells: printers::DEFINITIONS,
        ..CLUSTER
    },
    Row {
        group: "scheduling.k8s.io",
        resource: "priorityclasses",
        kind: "PriorityClass",
        singular: "priorityclass",
        short: "pc",
        facts: "scheduling.v1.PriorityClass",
        generation: true,
        cells: printers::PRIORITY_CLASSES,
        ..CLUSTER
    },
    Row {
        group: "coordination.k8s.io",
        resource: "leases",
        kind: "Lease",
        singular: "lease",
        facts: "coordination.v1.Lease",
        cells: printers::LEASES,
        ..BASE
    },
    Row {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        kind: "EndpointSlice",
        singular: "endpointslice",
        generation: true,
        facts: "discovery.v1.EndpointSlice",
        cells: printers::ENDPOINT_SLICES,
        ..BASE
    },
];

/// Every built-in kind, in discovery order.
pub(crate) fn built_in() -> Vec<Arc<Kind>> {
    CORE.iter().chain(GROUPS).map(|row| Arc::new(row.kind())).collect()
}

// === impl Row ===

impl Row {
    fn kind(&self) -> Kind {
        let names =
            |text: &'static str| text.split(' ').filter(|n| !n.is_empty()).map(Name::Borrowed).collect();
        let subresources = self.subresources.iter().map(|(name, group, version, kind, verbs)| Subresource {
            name,
            group: Name::Borrowed(if version.is_empty() { self.group } else { group }),
            version: Name::Borrowed(if version.is_empty() { self.version } else { version }),
            kind: Name::Borrowed(if kind.is_empty() { self.kind } else { kind }),
            verbs,
        });
        Kind {
            group: Name::Borrowed(self.group),
            version: Name::Borrowed(self.version),
            resource: Name::Borrowed(self.resource),
            kind: Name::Borrowed(self.kind),
            list_kind: Name::Owned(format!("{}List", self.kind)),
            singular: Name::Borrowed(self.singular),
            short_names: names(self.short),
            categories: names(self.categories),
            namespaced: self.namespaced,
            verbs: self.verbs,
            subresources: subresources.collect(),
            generation: self.generation,
            storage_group: Name::Borrowed(if self.group == "events.k8s.io" { "" } else { self.group }),
            type_id: type_of(self.facts),
            custom: None,
            strategy: (self.strategy)(),
            printer: Arc::new(self.cells),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_facts() {
        for kind in built_in() {
            assert!(kind.type_id.is_some(), "{}", kind.kind);
        }
    }
}
