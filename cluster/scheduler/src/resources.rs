//! Amounts of resources: what pods ask for and nodes have.

use std::collections::BTreeMap;

use cluster_machinery::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource,
};

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    /// Extended resources and huge pages.
    pub(crate) others: BTreeMap<String, i64>,
}

type Amounts = BTreeMap<String, resource::Quantity>;

// === impl Resources ===

impl Resources {
    /// Reads a map as in `requests` or `allocatable`; what is no quantity counts as nothing.
    pub(crate) fn read(amounts: Option<&Amounts>) -> Self {
        let mut read = Self::default();
        for (name, amount) in amounts.into_iter().flatten() {
            let Ok(quantity) = amount.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => read.milli_cpu = quantity.milli(),
                "memory" => read.memory = quantity.units(),
                "ephemeral-storage" => read.ephemeral = quantity.units(),
                "pods" => {}
                _ => {
                    read.others.insert(name.clone(), quantity.units());
                }
            }
        }
        read
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn raise(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.others {
            let own = self.others.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }
}

/// What a pod needs at its neediest: its containers and sidecars together, or an init container with the sidecars begun before it.
pub(crate) fn of_pod(spec: &PodSpec) -> Resources {
    let request = |container: &Container| {
        let resources = container.resources.as_ref();
        let mut request = Resources::read(resources.and_then(|resources| resources.limits.as_ref()));
        // A limit without request is a request too.
        let explicit = resources.and_then(|resources| resources.requests.as_ref());
        let read = Resources::read(explicit);
        for name in explicit.into_iter().flatten().map(|(name, _)| name.as_str()) {
            match name {
                "cpu" => request.milli_cpu = read.milli_cpu,
                "memory" => request.memory = read.memory,
                "ephemeral-storage" => request.ephemeral = read.ephemeral,
                _ => {}
            }
        }
        request.others.extend(read.others);
        request
    };
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut need = request(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&need);
            peak.raise(&sidecars);
        } else {
            need.add(&sidecars);
            peak.raise(&need);
        }
    }
    let mut total = sidecars;
    for container in &spec.containers {
        total.add(&request(container));
    }
    total.raise(&peak);
    total.add(&Resources::read(spec.overhead.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn needs(spec: Value) -> (i64, i64) {
        let resources = of_pod(&serde_json::from_value(spec).unwrap());
        (resources.milli_cpu, resources.memory)
    }

    #[test]
    fn containers_add_up_and_init_containers_peak() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}});
        assert_eq!(needs(json!({"containers": [c("100m"), c("1")]})), (1100, 2048));
        assert_eq!(
            needs(json!({"containers": [c("100m")], "initContainers": [c("2"), c("1")]})),
            (2000, 1024)
        );
        let mut sidecar = c("500m");
        sidecar["restartPolicy"] = "Always".into();
        assert_eq!(
            needs(json!({"containers": [c("100m")], "initContainers": [sidecar, c("200m")]})),
            (700, 2048)
        );
        assert_eq!(
            needs(json!({"containers": [c("100m")], "initContainers": [c("550m"), sidecar]})),
            (600, 2048)
        );
        assert_eq!(needs(json!({"containers": [], "overhead": {"cpu": "10m"}})), (10, 0));
        let limit = json!({"name": "c", "resources": {"limits": {"cpu": "3", "memory": "5"}, "requests": {"cpu": "1"}}});
        assert_eq!(needs(json!({"containers": [limit]})), (1000, 5));
    }
}
