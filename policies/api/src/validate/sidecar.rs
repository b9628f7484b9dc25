//! Rules of `Sidecar`.

use super::{Problem, field};
use crate::Sidecar;

pub(super) fn check(spec: &Sidecar, problems: &mut Vec<Problem>) {
    if let Some(selector) = &spec.workload_selector {
        field::labels(&selector.labels, "spec.workloadSelector.labels", problems);
    }
    let says_nothing = spec.ingress.is_empty()
        && spec.egress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none();
    if says_nothing {
        problems.push(Problem::error(
            "spec",
            "sidecar: empty configuration provided",
            "add egress with hosts, such as \"./*\"",
        ));
    }
    let mut without_port = 0;
    for (index, egress) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        if egress.hosts.is_empty() {
            problems.push(Problem::error(
                format!("{path}.hosts"),
                "sidecar: egress listener must contain at least one host",
                "add \"./*\"",
            ));
        }
        for (at, host) in egress.hosts.iter().enumerate() {
            let inner = format!("{path}.hosts[{at}]");
            match host.split_once('/') {
                Some((_, name)) => field::host(name, true, &inner, problems),
                None => {
                    let reason = format!("sidecar: host \"{host}\" must be of the form namespace/dnsName");
                    problems.push(Problem::error(inner, reason, format!("write ./{host} or */{host}")));
                }
            }
        }
        match &egress.port {
            Some(port) => field::port(port.number, &format!("{path}.port.number"), problems),
            None => without_port += 1,
        }
    }
    if without_port > 1 {
        problems.push(Problem::error(
            "spec.egress",
            "sidecar: only one egress listener may have no port",
            "join them",
        ));
    }
    for (index, ingress) in spec.ingress.iter().enumerate() {
        field::port(ingress.port.number, &format!("spec.ingress[{index}].port.number"), problems);
        let path = format!("spec.ingress[{index}]");
        let reason =
            "custom inbound listeners are not supported: ports come from the services that select the pod";
        problems.push(Problem::warning(path, reason, "remove it"));
    }
}
