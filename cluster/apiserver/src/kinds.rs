//! The table of kinds: what is served, under which names, with which strategy and columns. Built-in kinds are rows of [`table`];
//! custom resource definitions add entries at run time. Everybody else treats all kinds alike.

pub(crate) mod rbac;
pub(crate) mod strategy;
pub(crate) mod table;
pub(crate) mod validation;
pub(crate) mod workload;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use cluster_machinery::{GroupKind, GroupResource};
use serde_json::Value;

use crate::{
    crd::CustomVersion,
    printers::Printer,
    schema::{TypeId, facts},
};
use strategy::Strategy;

/// A name that is either in the binary or came with a definition.
pub(crate) type Name = Cow<'static, str>;

/// A part of an object with a URL of its own.
#[derive(Debug, Clone)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) group: Name,
    pub(crate) version: Name,
    pub(crate) kind: Name,
    pub(crate) verbs: &'static [&'static str],
}

/// One kind in one version.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: Name,
    pub(crate) version: Name,
    pub(crate) resource: Name,
    pub(crate) kind: Name,
    pub(crate) list_kind: Name,
    pub(crate) singular: Name,
    pub(crate) short_names: Vec<Name>,
    pub(crate) categories: Vec<Name>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: &'static [&'static str],
    pub(crate) subresources: Vec<Subresource>,
    /// Whether changes outside metadata and status count up `metadata.generation`.
    pub(crate) generation: bool,
    /// The group whose storage this kind shares (`events.k8s.io` shares with core).
    pub(crate) storage_group: Name,
    /// The facts of a built-in type.
    pub(crate) type_id: Option<TypeId>,
    pub(crate) custom: Option<Arc<CustomVersion>>,
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) printer: Arc<dyn Printer>,
}

/// Everything served now. Immutable; a change publishes a new one.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// In discovery order.
    list: Vec<Arc<Kind>>,
    index: HashMap<(String, String, String), Arc<Kind>>,
}

/// The table that changes with custom resource definitions.
#[derive(Debug)]
pub(crate) struct KindTable {
    current: ArcSwap<Kinds>,
}

// === impl Kind ===

impl Kind {
    /// `group/version`, or `version` in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.resource.clone())
    }

    pub(crate) fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.group.clone(), self.kind.clone())
    }

    /// The prefix under which all objects are stored, ending in `/`.
    pub(crate) fn prefix(&self) -> String {
        let group = if self.storage_group.is_empty() { "core" } else { &self.storage_group };
        format!("/registry/{group}/{}/", self.resource)
    }

    /// The prefix of one namespace, or of everything when that is empty or does not apply.
    pub(crate) fn prefix_in(&self, namespace: &str) -> String {
        let mut prefix = self.prefix();
        if self.namespaced && !namespace.is_empty() {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        prefix
    }

    /// The key of one object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        let mut key = self.prefix_in(namespace);
        key.push_str(name);
        key
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub(crate) fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether the kind is this resource of this group.
    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// Whether stored objects must be rewritten to be shown as this kind.
    pub(crate) fn converts(&self) -> bool {
        self.storage_group != self.group || self.custom.as_ref().is_some_and(|custom| custom.rewrites())
    }

    /// Rewrites a stored object into this version.
    pub(crate) fn show(&self, object: &mut Value) {
        if self.storage_group != self.group {
            crate::registry::events::to_events_group(object);
        }
        if let Some(custom) = &self.custom {
            object["apiVersion"] = Value::String(self.api_version());
            custom.apply_defaults(object);
        }
    }

    /// Rewrites an object of this version into what is stored.
    pub(crate) fn store(&self, object: &mut Value) {
        if self.storage_group != self.group {
            crate::registry::events::to_core_group(object);
        }
        if let Some(custom) = &self.custom {
            object["apiVersion"] = Value::String(format!("{}/{}", self.group, custom.storage_version));
        }
    }
}

// === impl Kinds ===

impl Kinds {
    fn new(list: Vec<Arc<Kind>>) -> Self {
        let index = list
            .iter()
            .map(|k| ((k.group.to_string(), k.version.to_string(), k.resource.to_string()), Arc::clone(k)))
            .collect();
        Self { list, index }
    }

    pub(crate) fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Kind>> {
        self.index.get(&(group.to_owned(), version.to_owned(), resource.to_owned()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.list.iter()
    }

    /// Groups with their versions, in discovery order; the first version is preferred.
    pub(crate) fn groups(&self) -> Vec<(Name, Vec<Name>)> {
        let mut groups: Vec<(Name, Vec<Name>)> = Vec::new();
        for kind in &self.list {
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) if versions.contains(&kind.version) => {}
                Some((_, versions)) => versions.push(kind.version.clone()),
                None => groups.push((kind.group.clone(), vec![kind.version.clone()])),
            }
        }
        groups
    }
}

// === impl KindTable ===

impl KindTable {
    /// The built-in kinds.
    pub(crate) fn new() -> Self {
        Self { current: ArcSwap::from_pointee(Kinds::new(table::built_in())) }
    }

    pub(crate) fn load(&self) -> Arc<Kinds> {
        self.current.load_full()
    }

    /// The built-in kind of that resource.
    pub(crate) fn get(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        self.current.load().find(group, version, resource).cloned()
    }

    /// Replaces all custom kinds.
    pub(crate) fn publish_custom(&self, custom: Vec<Arc<Kind>>) {
        let mut list: Vec<_> = self.load().iter().filter(|kind| kind.custom.is_none()).cloned().collect();
        list.extend(custom);
        self.current.store(Arc::new(Kinds::new(list)));
    }
}

/// The facts type of a row.
fn type_of(name: &str) -> Option<TypeId> {
    facts().find(name)
}
