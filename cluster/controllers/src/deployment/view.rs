//! A Deployment with its ReplicaSets, as the steps look at it.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};

use super::{DESIRED_REPLICAS, HASH, annotation, available, replicas};
use crate::{
    cache::Key,
    hub::Caches,
    plan::{Action, Kind},
    pod,
};

/// A Deployment and its ReplicaSets, oldest first.
pub(super) struct View {
    pub(super) deployment: Arc<Deployment>,
    pub(super) spec: DeploymentSpec,
    sets: Vec<Arc<ReplicaSet>>,
    new: Option<usize>,
    /// Writes that adopt or release ReplicaSets.
    pub(super) claims: Vec<Action>,
}

// === impl View ===

impl View {
    /// `None` if the Deployment has no spec.
    pub(super) fn new(caches: &Caches, deployment: Arc<Deployment>) -> Option<Self> {
        let spec = deployment.spec.clone()?;
        let meta = &deployment.metadata;
        let (mut sets, mut claims) = (Vec::new(), Vec::new());
        for set in caches.replica_sets.in_namespace(meta.namespace.as_deref().unwrap_or_default()) {
            let matches = pod::selects(&spec.selector, &set.metadata);
            if pod::is_controlled_by(&set.metadata, meta.uid.as_deref()) {
                if matches {
                    sets.push(set);
                } else {
                    let owners = set.metadata.owner_references.iter().flatten();
                    let others: Vec<_> =
                        owners.filter(|owner| Some(&owner.uid) != meta.uid.as_ref()).collect();
                    claims.push(own(&set, &json!(others)));
                }
            } else if matches
                && pod::controller(&set.metadata).is_none()
                && set.metadata.deletion_timestamp.is_none()
            {
                let mut owners: Vec<Value> =
                    set.metadata.owner_references.iter().flatten().map(|owner| json!(owner)).collect();
                owners.push(Kind::Deployment.owner(meta));
                claims.push(own(&set, &json!(owners)).while_alive(Kind::Deployment, meta));
                sets.push(set);
            }
        }
        sets.sort_by(|a, b| {
            let order = |set: &ReplicaSet| {
                (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
            };
            order(a).cmp(&order(b))
        });
        let new = sets.iter().position(|set| {
            set.spec
                .as_ref()
                .and_then(|set| set.template.as_ref())
                .is_some_and(|template| same_template(template, &spec.template))
        });
        Some(Self { deployment, spec, sets, new, claims })
    }

    /// The ReplicaSet of the template that is asked for now.
    pub(super) fn new_set(&self) -> Option<&ReplicaSet> {
        self.new.map(|index| &*self.sets[index])
    }

    /// The other ReplicaSets, oldest first.
    pub(super) fn old_sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.sets.iter().enumerate().filter(|(index, _)| Some(*index) != self.new).map(|(_, set)| &**set)
    }

    /// All ReplicaSets, oldest first.
    pub(super) fn all_sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.sets.iter().map(|set| &**set)
    }

    pub(super) fn key(&self) -> Key {
        Key::of(&*self.deployment)
    }

    pub(super) fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    pub(super) fn paused(&self) -> bool {
        self.spec.paused.unwrap_or(false)
    }

    pub(super) fn is_recreate(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    /// How many pods there may be beyond the replicas asked for, and how many may be missing. Surge rounds up, unavailability down.
    fn bounds(&self) -> (i32, i32) {
        if self.is_recreate() {
            return (0, 0);
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.replicas(), true);
        let unavailable =
            share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), self.replicas(), false);
        // With neither, nothing could ever move.
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// The most pods there may be.
    pub(super) fn max_total(&self) -> i32 {
        self.replicas() + self.bounds().0
    }

    pub(super) fn max_surge(&self) -> i32 {
        self.bounds().0
    }

    /// The pods that may be missing.
    pub(super) fn max_unavailable(&self) -> i32 {
        self.bounds().1.min(self.replicas())
    }

    pub(super) fn total_replicas(&self) -> i32 {
        self.all_sets().map(replicas).sum()
    }

    pub(super) fn total_available(&self) -> i32 {
        self.all_sets().map(available).sum()
    }

    /// Whether the replicas asked for have changed since the ReplicaSets were last scaled.
    pub(super) fn was_scaled(&self) -> bool {
        self.all_sets().filter(|set| replicas(set) > 0).any(|set| {
            annotation(set, DESIRED_REPLICAS)
                .and_then(|count| count.parse().ok())
                .is_some_and(|count: i32| count != self.replicas())
        })
    }

    /// Whether pods of old ReplicaSets still run or end.
    pub(super) fn old_pods_remain(&self, caches: &Caches) -> bool {
        let pods =
            caches.pods.in_namespace(self.deployment.metadata.namespace.as_deref().unwrap_or_default());
        self.old_sets().any(|set| {
            pods.iter().any(|pod| {
                pod::is_controlled_by(&pod.metadata, set.metadata.uid.as_deref()) && !pod::is_finished(pod)
            })
        })
    }
}

fn own(set: &ReplicaSet, owners: &Value) -> Action {
    let meta = &set.metadata;
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
    Action::patch(Kind::ReplicaSet, Key::of(set), patch)
}

/// Whether two templates ask for the same pods.
pub(super) fn same_template(of_set: &PodTemplateSpec, wanted: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(meta) = &mut template.metadata {
            if let Some(labels) = &mut meta.labels {
                labels.remove(HASH);
            }
            meta.creation_timestamp = None;
        }
        template
    };
    plain(of_set) == plain(wanted)
}

/// A number, or a percentage of the replicas; 25 % if absent.
fn share(value: Option<&IntOrString>, replicas: i32, up: bool) -> i32 {
    let percent = |percent: i64| {
        let parts = percent * i64::from(replicas);
        let whole = if up { (parts + 99).div_euclid(100) } else { parts.div_euclid(100) };
        i32::try_from(whole).unwrap_or(i32::MAX)
    };
    match value {
        None => percent(25),
        Some(IntOrString::Int(count)) => (*count).max(0),
        Some(IntOrString::String(text)) => {
            percent(text.trim_end_matches('%').parse().unwrap_or(25).clamp(0, 1000))
        }
    }
}
