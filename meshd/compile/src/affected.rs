//! What a change can reach: nothing of a proxy, its endpoints only, or anything.
//!
//! Coarse on purpose: a policy object concerns a proxy by the model's selection rules, and what is recompiled is diffed by hash afterwards.

use meshd_model::{Change, ChangeKind, ProxyKey, ProxyKind, Snapshot};

/// What must be compiled again for a proxy after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Affected {
    /// Nothing.
    Nothing,
    /// Endpoints only: use `compile_endpoints`.
    Endpoints,
    /// Everything: use `compile`.
    Everything,
}

/// What of a proxy's resources the change can reach, given the snapshots before and after it.
#[must_use]
pub fn affected(change: &Change, before: &Snapshot, after: &Snapshot, proxy: &ProxyKey) -> Affected {
    if change.everything {
        return Affected::Everything;
    }
    change.keys.iter().map(|key| reach(key, before, after, proxy)).max().unwrap_or(Affected::Nothing)
}

fn reach(key: &meshd_model::ChangeKey, before: &Snapshot, after: &Snapshot, proxy: &ProxyKey) -> Affected {
    match key.kind {
        ChangeKind::Endpoints => Affected::Endpoints,
        ChangeKind::Secret if proxy.kind == ProxyKind::Sidecar || key.namespace != proxy.namespace => {
            Affected::Nothing
        }
        // A pod's own labels reach its proxy through selectors; another pod reaches it through endpoints, which are changes of their own.
        ChangeKind::Workload if key.namespace == proxy.namespace && key.name == proxy.pod => {
            Affected::Everything
        }
        ChangeKind::Workload => Affected::Nothing,
        ChangeKind::Policy(kind) => {
            let id = meshd_model::ObjectId { kind, namespace: key.namespace.clone(), name: key.name.clone() };
            let concerned =
                [before, after].into_iter().any(|it| meshd_model::select::concerns(it, &id, proxy));
            if concerned { Affected::Everything } else { Affected::Nothing }
        }
        ChangeKind::Secret | ChangeKind::Service | ChangeKind::Namespace | ChangeKind::MeshConfig => {
            Affected::Everything
        }
    }
}
