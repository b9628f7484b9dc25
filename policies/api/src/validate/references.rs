//! References between objects: subsets that no destination rule has, hosts and gateways that nobody knows, two objects for one host.
//!
//! Istio accepts such objects and reports them by analysis; so do we, as warnings, except a subset that does not exist, which only ever
//! answers 503 and is an error.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Problem;
use crate::kind::{Kind, Spec};
use crate::virtual_service::Destination;

/// What exists besides the object: services, and policy objects in their stored form.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Services by full host name.
    pub services: BTreeMap<String, KnownService>,
    /// Policy objects (`VirtualService`, `DestinationRule`, `Gateway`, `ServiceEntry`), those of the same file included.
    pub objects: Vec<Value>,
    /// DNS suffix of the cluster.
    pub cluster_domain: String,
}

/// A service that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownService {
    /// Its ports.
    pub ports: BTreeSet<u16>,
}

/// What an object refers to and does not find.
#[must_use]
pub fn references(object: &Value, known: &Known) -> Vec<Problem> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let Some(Kind::VirtualService) = Kind::of(text("/apiVersion"), text("/kind")) else { return Vec::new() };
    let Ok(Spec::VirtualService(spec)) = Spec::parse(Kind::VirtualService, object.get("spec")) else {
        return Vec::new();
    };
    let namespace = Some(text("/metadata/namespace")).filter(|it| !it.is_empty()).unwrap_or("default");
    let mut problems = Vec::new();
    let look = Lookup { known, namespace };
    for (index, rule) in spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        for (at, target) in rule.route.iter().enumerate() {
            look.destination(&target.destination, &format!("{path}.route[{at}].destination"), &mut problems);
        }
        if let Some(destination) = &rule.mirror {
            look.destination(destination, &format!("{path}.mirror"), &mut problems);
        }
        for (at, mirror) in rule.mirrors.iter().enumerate() {
            look.destination(
                &mirror.destination,
                &format!("{path}.mirrors[{at}].destination"),
                &mut problems,
            );
        }
    }
    for (name, rules) in [
        ("tls", spec.tls.iter().map(|it| &it.route).collect::<Vec<_>>()),
        ("tcp", spec.tcp.iter().map(|it| &it.route).collect()),
    ] {
        for (index, targets) in rules.into_iter().enumerate() {
            for (at, target) in targets.iter().enumerate() {
                look.destination(
                    &target.destination,
                    &format!("spec.{name}[{index}].route[{at}].destination"),
                    &mut problems,
                );
            }
        }
    }
    look.gateways(&spec.gateways, &mut problems);
    look.conflicts(&spec.hosts, &spec.gateways, text("/metadata/name"), &mut problems);
    problems
}

struct Lookup<'a> {
    known: &'a Known,
    namespace: &'a str,
}

// === impl Lookup ===

impl Lookup<'_> {
    fn destination(&self, destination: &Destination, path: &str, problems: &mut Vec<Problem>) {
        let host = self.full(&destination.host, self.namespace);
        let service = self.known.services.get(&host);
        let by_entry = self.objects(Kind::ServiceEntry).any(|(_, _, spec)| match spec {
            Spec::ServiceEntry(entry) => entry.hosts.iter().any(|it| covers(it, &host)),
            _ => false,
        });
        if service.is_none() && !by_entry {
            let reason = format!("Referenced host not found: \"{}\"", destination.host);
            let known: Vec<&str> = self.known.services.keys().map(String::as_str).collect();
            let short = known.iter().map(|it| it.split('.').next().unwrap_or_default());
            let fix = crate::schema::nearest(destination.host.split('.').next().unwrap_or_default(), short)
                .map_or_else(
                    || "create the service first, or correct the name".to_owned(),
                    |it| format!("did you mean {it}?"),
                );
            problems.push(Problem::warning(format!("{path}.host"), reason, fix).code("IST0101"));
        }
        if let Some(service) = service {
            self.port(destination, service, path, problems);
        }
        if !destination.subset.is_empty() {
            self.subset(destination, &host, path, problems);
        }
    }

    fn port(
        &self,
        destination: &Destination,
        service: &KnownService,
        path: &str,
        problems: &mut Vec<Problem>,
    ) {
        let listed = || service.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match destination.port {
            Some(port) if u16::try_from(port.number).is_ok_and(|it| !service.ports.contains(&it)) => {
                let reason = format!("service {} has no port {}", destination.host, port.number);
                problems.push(
                    Problem::warning(
                        format!("{path}.port.number"),
                        reason,
                        format!("use one of {}", listed()),
                    )
                    .code("IST0101"),
                );
            }
            None if service.ports.len() > 1 => {
                let reason =
                    "This host has multiple ports but none is specified: the port of the request is used";
                problems.push(
                    Problem::warning(path, reason, format!("add port.number, one of {}", listed()))
                        .code("IST0112"),
                );
            }
            _ => {}
        }
    }

    fn subset(&self, destination: &Destination, host: &str, path: &str, problems: &mut Vec<Problem>) {
        let mut names: Vec<String> = Vec::new();
        for (_, namespace, spec) in self.objects(Kind::DestinationRule) {
            if let Spec::DestinationRule(rule) = spec
                && covers(&self.full(&rule.host, &namespace), host)
            {
                names.extend(rule.subsets.iter().map(|it| it.name.clone()));
            }
        }
        if names.contains(&destination.subset) {
            return;
        }
        let reason = format!(
            "Referenced subset not found: \"{}\" of host \"{}\"",
            destination.subset, destination.host
        );
        let fix = if names.is_empty() {
            format!("apply a DestinationRule for {} with that subset first", destination.host)
        } else {
            format!("use one of {}, or add it to the DestinationRule", names.join(", "))
        };
        problems.push(Problem::error(format!("{path}.subset"), reason, fix).code("IST0101"));
    }

    fn gateways(&self, gateways: &[String], problems: &mut Vec<Problem>) {
        for (index, written) in gateways.iter().enumerate().filter(|(_, it)| *it != "mesh") {
            let (namespace, name) = written.split_once('/').unwrap_or((self.namespace, written));
            let namespace = if namespace == "." { self.namespace } else { namespace };
            if !self.objects(Kind::Gateway).any(|(its_name, of, _)| its_name == name && of == namespace) {
                let reason = format!("Referenced gateway not found: \"{written}\"");
                problems.push(
                    Problem::warning(
                        format!("spec.gateways[{index}]"),
                        reason,
                        "apply the Gateway, or correct the name",
                    )
                    .code("IST0101"),
                );
            }
        }
    }

    /// Two objects for one host on the mesh: the older one wins and the other has no effect.
    fn conflicts(&self, hosts: &[String], gateways: &[String], own_name: &str, problems: &mut Vec<Problem>) {
        let is_mesh = |gateways: &[String]| gateways.is_empty() || gateways.iter().any(|it| it == "mesh");
        if !is_mesh(gateways) {
            return;
        }
        for (name, namespace, spec) in self.objects(Kind::VirtualService) {
            let Spec::VirtualService(other) = spec else { continue };
            if (name == own_name && namespace == self.namespace) || !is_mesh(&other.gateways) {
                continue;
            }
            for (index, host) in hosts.iter().enumerate() {
                let full = self.full(host, self.namespace);
                if other.hosts.iter().any(|it| self.full(it, &namespace) == full) {
                    let reason = format!(
                        "The VirtualServices {own_name} and {name} define the same host {host}: the older one wins"
                    );
                    let fix = format!("delete {namespace}/{name}, or add these rules to it");
                    problems
                        .push(Problem::warning(format!("spec.hosts[{index}]"), reason, fix).code("IST0109"));
                }
            }
        }
    }

    /// Name, namespace and spec of the known objects of a kind.
    fn objects(&self, kind: Kind) -> impl Iterator<Item = (String, String, Spec)> {
        self.known.objects.iter().filter_map(move |object| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let is_kind = Kind::of(text("/apiVersion"), text("/kind")) == Some(kind);
            let spec = if is_kind { Spec::parse(kind, object.get("spec")).ok() } else { None }?;
            let namespace =
                Some(text("/metadata/namespace")).filter(|it| !it.is_empty()).unwrap_or("default");
            Some((text("/metadata/name").to_owned(), namespace.to_owned(), spec))
        })
    }

    fn full(&self, host: &str, namespace: &str) -> String {
        if host.contains('.') || host.contains('*') {
            return host.to_owned();
        }
        format!("{host}.{namespace}.svc.{}", self.known.cluster_domain)
    }
}

fn covers(pattern: &str, host: &str) -> bool {
    pattern.strip_prefix('*').map_or(pattern == host, |suffix| host.ends_with(suffix))
}
