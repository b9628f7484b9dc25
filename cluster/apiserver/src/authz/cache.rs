//! Roles and bindings as they are now, following the store.

use std::{collections::HashMap, sync::Arc};

use cluster_store::{EventKind, KeyValue};
use parking_lot::RwLock;
use serde_json::Value;

use super::{Question, rules::Rule};
use crate::{
    api::Api,
    authn::User,
    config::Error,
    follow::{self, Change},
    object::{self, items, text},
};

const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Rbac(RwLock<Tables>);

/// Keys are store keys after the prefix: `clusterroles/NAME`, `roles/NAMESPACE/NAME`.
#[derive(Debug, Default)]
struct Tables {
    roles: HashMap<String, Role>,
    bindings: HashMap<String, Binding>,
}

#[derive(Debug)]
struct Role {
    rules: Arc<[Rule]>,
    labels: Value,
    /// Label selectors of the roles whose rules this one has too.
    aggregates: Vec<cluster_machinery::LabelSelector>,
}

#[derive(Debug)]
struct Binding {
    /// Empty for a binding of the whole cluster.
    namespace: String,
    /// The role's key.
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
}

// === impl Rbac ===

impl Rbac {
    pub(crate) fn allows(&self, user: &User, question: &Question<'_>) -> bool {
        let mut found = false;
        self.visit(user, question.namespace, |rule, cluster_wide| {
            found = (cluster_wide || question.path.is_none()) && rule.allows(question);
            !found
        });
        found
    }

    /// Every rule that applies to a user in a namespace.
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        self.visit(user, namespace, |rule, _| {
            rules.push(rule.clone());
            true
        });
        rules
    }

    /// The rules of a role, with those it aggregates.
    pub(crate) fn role(&self, resource: &str, namespace: &str, name: &str) -> Vec<Rule> {
        let key = if resource == "roles" {
            format!("roles/{namespace}/{name}")
        } else {
            format!("clusterroles/{name}")
        };
        self.0.read().rules_of(&key).iter().flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// Shows applicable rules, and whether they hold everywhere, until `look` returns false.
    fn visit(&self, user: &User, namespace: &str, mut look: impl FnMut(&Rule, bool) -> bool) {
        let tables = self.0.read();
        for binding in tables.bindings.values() {
            let applies =
                binding.namespace.is_empty() || (!namespace.is_empty() && binding.namespace == namespace);
            if !applies || !binding.subjects.iter().any(|subject| subject.is(user)) {
                continue;
            }
            for rules in tables.rules_of(&binding.role) {
                for rule in rules.iter() {
                    if !look(rule, binding.namespace.is_empty()) {
                        return;
                    }
                }
            }
        }
    }

    fn apply(&self, kind: EventKind, kv: &KeyValue) {
        let Some(key) = kv.key.strip_prefix(PREFIX) else { return };
        let mut tables = self.0.write();
        let is_role = key.starts_with("clusterroles/") || key.starts_with("roles/");
        if kind == EventKind::Delete {
            if is_role {
                drop(tables.roles.remove(key))
            } else {
                drop(tables.bindings.remove(key))
            }
            return;
        }
        let Ok(object) = object::decode(kv) else { return };
        if is_role {
            tables.roles.insert(key.to_owned(), Role::read(&object));
        } else {
            tables.bindings.insert(key.to_owned(), Binding::read(&object));
        }
    }
}

// === impl Tables ===

impl Tables {
    /// The rules of a role: its own and those it aggregates.
    fn rules_of(&self, key: &str) -> Vec<Arc<[Rule]>> {
        let Some(role) = self.roles.get(key) else { return Vec::new() };
        let mut all = vec![Arc::clone(&role.rules)];
        for selector in &role.aggregates {
            for (name, other) in &self.roles {
                let matches = || selector.matches(|label| other.labels.get(label).and_then(Value::as_str));
                if name != key && name.starts_with("clusterroles/") && matches() {
                    all.push(Arc::clone(&other.rules));
                    // Aggregation goes two levels deep: admin has edit, edit has view.
                    for inner in &other.aggregates {
                        let inner = self
                            .roles
                            .values()
                            .filter(|r| inner.matches(|l| r.labels.get(l).and_then(Value::as_str)));
                        all.extend(inner.map(|role| Arc::clone(&role.rules)));
                    }
                }
            }
        }
        all
    }
}

// === impl Role ===

impl Role {
    fn read(role: &Value) -> Self {
        let selectors = items(role, "/aggregationRule/clusterRoleSelectors");
        Self {
            rules: Rule::read(role).into(),
            labels: role["metadata"]["labels"].clone(),
            aggregates: selectors
                .iter()
                .filter_map(|s| cluster_machinery::LabelSelector::from_object(s).ok().flatten())
                .collect(),
        }
    }
}

// === impl Binding ===

impl Binding {
    fn read(binding: &Value) -> Self {
        let namespace = object::namespace(binding).to_owned();
        let name = text(binding, "/roleRef/name");
        let role = match text(binding, "/roleRef/kind") {
            "Role" => format!("roles/{namespace}/{name}"),
            _ => format!("clusterroles/{name}"),
        };
        let subjects = items(binding, "/subjects").iter().filter_map(|subject| {
            let name = text(subject, "/name");
            match text(subject, "/kind") {
                "User" => Some(Subject::User(name.to_owned())),
                "Group" => Some(Subject::Group(name.to_owned())),
                "ServiceAccount" => {
                    let home =
                        Some(text(subject, "/namespace")).filter(|n| !n.is_empty()).unwrap_or(&namespace);
                    Some(Subject::User(format!("system:serviceaccount:{home}:{name}")))
                }
                _ => None,
            }
        });
        Self { role, subjects: subjects.collect(), namespace: namespace.clone() }
    }
}

// === impl Subject ===

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => *name == user.name,
            Subject::Group(name) => user.is_in(name),
        }
    }
}

/// Fills the cache and keeps it up to date.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn follow(api: &Arc<Api>) -> Result<(), Error> {
    let shared = Arc::downgrade(api);
    follow::follow(api, PREFIX, move |change| {
        let Some(api) = shared.upgrade() else { return };
        match change {
            Change::Reset => *api.rbac.0.write() = Tables::default(),
            Change::Put(kv) => api.rbac.apply(EventKind::Put, kv),
            Change::Delete(kv) => api.rbac.apply(EventKind::Delete, kv),
            Change::Settled => {}
        }
    })
}
