//! The rest of the core group, endpoint slices and leases.

use serde_json::{Value, json};

use super::{AGE, Cells, NAME, age, count, or_none, pairs, since};
use crate::object::{integer, items, name, text};

pub(crate) const NAMESPACES: Cells = Cells {
    columns: &[NAME, ("Status", "string", "", 0, "Active or Terminating."), AGE],
    cells: |object, now| vec![json!(name(object)), json!(text(object, "/status/phase")), age(object, now)],
};

pub(crate) const CONFIG_MAPS: Cells = Cells {
    columns: &[NAME, ("Data", "string", "", 0, "How many keys."), AGE],
    cells: |object, now| {
        let keys = count(&object["data"]) + count(&object["binaryData"]);
        vec![json!(name(object)), json!(keys.to_string()), age(object, now)]
    },
};

pub(crate) const SECRETS: Cells = Cells {
    columns: &[
        NAME,
        ("Type", "string", "", 0, "What the data is for."),
        ("Data", "string", "", 0, "How many keys."),
        AGE,
    ],
    cells: |object, now| {
        let keys = count(&object["data"]).to_string();
        vec![json!(name(object)), json!(text(object, "/type")), json!(keys), age(object, now)]
    },
};

pub(crate) const SERVICE_ACCOUNTS: Cells = Cells {
    columns: &[NAME, ("Secrets", "string", "", 0, "How many secrets it names."), AGE],
    cells: |object, now| {
        vec![json!(name(object)), json!(count(&object["secrets"]).to_string()), age(object, now)]
    },
};

pub(crate) const SERVICES: Cells = Cells {
    columns: &[
        NAME,
        ("Type", "string", "", 0, "How it is reached."),
        ("Cluster-IP", "string", "", 0, "Address inside the cluster."),
        ("External-IP", "string", "", 0, "Address outside."),
        ("Port(s)", "string", "", 0, "Ports and node ports."),
        AGE,
        ("Selector", "string", "", 1, "Which pods are behind it."),
    ],
    cells: |object, now| {
        vec![
            json!(name(object)),
            json!(text(object, "/spec/type")),
            or_none(text(object, "/spec/clusterIP")),
            json!(external_address(object)),
            json!(service_ports(object)),
            age(object, now),
            pairs(&object["spec"]["selector"]),
        ]
    },
};

fn external_address(service: &Value) -> String {
    let given =
        items(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = items(service, "/status/loadBalancer/ingress").iter();
            let mut all: Vec<&str> = ingress
                .map(|i| if text(i, "/ip").is_empty() { text(i, "/hostname") } else { text(i, "/ip") })
                .collect();
            if !given.is_empty() {
                all.push(&given);
            }
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if given.is_empty() => "<none>".to_owned(),
        _ => given,
    }
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = items(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (integer(port, "/port").unwrap_or(0), text(port, "/protocol"));
            match integer(port, "/nodePort") {
                Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

pub(crate) const NODES: Cells = Cells {
    columns: &[
        NAME,
        ("Status", "string", "", 0, "Ready or not, and whether pods are taken."),
        ("Roles", "string", "", 0, "Roles, from labels."),
        AGE,
        ("Version", "string", "", 0, "Version of the kubelet."),
        ("Internal-IP", "string", "", 1, "Address inside."),
        ("External-IP", "string", "", 1, "Address outside."),
        ("OS-Image", "string", "", 1, "Operating system."),
        ("Kernel-Version", "string", "", 1, "Kernel."),
        ("Container-Runtime", "string", "", 1, "Container runtime."),
    ],
    cells: |object, now| {
        let address = |kind: &str| {
            let found = items(object, "/status/addresses").iter().find(|a| a["type"] == kind);
            or_none(found.map_or("", |a| text(a, "/address")))
        };
        let known = |pointer: &str| match text(object, pointer) {
            "" => json!("<unknown>"),
            text => json!(text),
        };
        vec![
            json!(name(object)),
            json!(node_status(object)),
            or_none(&node_roles(object)),
            age(object, now),
            json!(text(object, "/status/nodeInfo/kubeletVersion")),
            address("InternalIP"),
            address("ExternalIP"),
            known("/status/nodeInfo/osImage"),
            known("/status/nodeInfo/kernelVersion"),
            known("/status/nodeInfo/containerRuntimeVersion"),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => value.as_str(),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.join(",")
}

pub(crate) const EVENTS: Cells = Cells {
    columns: &[
        ("Last Seen", "string", "", 0, "When it happened last."),
        ("Type", "string", "", 0, "Normal or Warning."),
        ("Reason", "string", "", 0, "Why, in one word."),
        ("Object", "string", "", 0, "What it is about."),
        ("Subobject", "string", "", 1, "Which part of it."),
        ("Source", "string", "", 1, "Who says so."),
        ("Message", "string", "", 0, "What happened."),
        ("First Seen", "string", "", 1, "When it happened first."),
        ("Count", "string", "", 1, "How often."),
        ("Name", "string", "name", 1, "Name of the event."),
    ],
    cells: |object, now| {
        let either = |core: &str, events: &str| {
            let value = text(object, core);
            if value.is_empty() { text(object, events) } else { value }
        };
        let reference =
            if object.get("regarding").is_some() { &object["regarding"] } else { &object["involvedObject"] };
        let first = [either("/firstTimestamp", "/deprecatedFirstTimestamp"), text(object, "/eventTime")];
        let first = first
            .into_iter()
            .find(|t| !t.is_empty())
            .unwrap_or_else(|| text(object, "/metadata/creationTimestamp"));
        let last =
            [text(object, "/series/lastObservedTime"), either("/lastTimestamp", "/deprecatedLastTimestamp")];
        let last = last.into_iter().find(|t| !t.is_empty()).unwrap_or(first);
        let count = ["/series/count", "/count", "/deprecatedCount"]
            .iter()
            .find_map(|p| integer(object, p))
            .unwrap_or(1);
        let component = match either("/source/component", "/deprecatedSource/component") {
            "" => either("/reportingComponent", "/reportingController"),
            component => component,
        };
        let host = either("/source/host", "/deprecatedSource/host");
        let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
        let about = format!("{}/{}", text(reference, "/kind").to_lowercase(), text(reference, "/name"));
        vec![
            json!(since(last, now)),
            json!(text(object, "/type")),
            json!(text(object, "/reason")),
            json!(about),
            json!(text(reference, "/fieldPath")),
            json!(source),
            json!(either("/message", "/note").trim()),
            json!(since(first, now)),
            json!(count.to_string()),
            json!(name(object)),
        ]
    },
};

pub(crate) const LEASES: Cells = Cells {
    columns: &[NAME, ("Holder", "string", "", 0, "Who holds it."), AGE],
    cells: |object, now| {
        vec![json!(name(object)), json!(text(object, "/spec/holderIdentity")), age(object, now)]
    },
};

pub(crate) const ENDPOINTS: Cells = Cells {
    columns: &[NAME, ("Endpoints", "string", "", 0, "Addresses and ports."), AGE],
    cells: |object, now| {
        let mut all = Vec::new();
        for subset in items(object, "/subsets") {
            for address in items(subset, "/addresses") {
                for port in items(subset, "/ports") {
                    all.push(format!("{}:{}", text(address, "/ip"), integer(port, "/port").unwrap_or(0)));
                }
            }
        }
        vec![json!(name(object)), json!(shortened(&all)), age(object, now)]
    },
};

pub(crate) const ENDPOINT_SLICES: Cells = Cells {
    columns: &[
        NAME,
        ("AddressType", "string", "", 0, "IPv4, IPv6 or FQDN."),
        ("Ports", "string", "", 0, "Port numbers."),
        ("Endpoints", "string", "", 0, "Addresses."),
        AGE,
    ],
    cells: |object, now| {
        let ports: Vec<String> = items(object, "/ports")
            .iter()
            .map(|port| integer(port, "/port").map_or_else(|| "*".to_owned(), |p| p.to_string()))
            .collect();
        let addresses: Vec<String> = items(object, "/endpoints")
            .iter()
            .flat_map(|endpoint| {
                items(endpoint, "/addresses").iter().filter_map(Value::as_str).map(str::to_owned)
            })
            .collect();
        let unset = |text: String| if text == "<none>" { "<unset>".to_owned() } else { text };
        vec![
            json!(name(object)),
            json!(text(object, "/addressType")),
            json!(unset(shortened(&ports))),
            json!(unset(shortened(&addresses))),
            age(object, now),
        ]
    },
};

/// The first three, and how many more there are.
fn shortened(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".to_owned(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}
