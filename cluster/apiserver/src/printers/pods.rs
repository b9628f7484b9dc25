//! Pods: readiness, the one word of status, restarts.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Cells, NAME, age, or_none, since};
use crate::object::{integer, is_deleting, items, name, text};

pub(crate) const PODS: Cells = Cells {
    columns: &[
        NAME,
        ("Ready", "string", "", 0, "Ready containers of all containers."),
        ("Status", "string", "", 0, "Phase, or why it is not further."),
        ("Restarts", "string", "", 0, "How often containers were restarted, and when last."),
        AGE,
        ("IP", "string", "", 1, "Address of the pod."),
        ("Node", "string", "", 1, "Node that runs the pod."),
        ("Nominated Node", "string", "", 1, "Node on which others are preempted for the pod."),
        ("Readiness Gates", "string", "", 1, "Conditions that must hold besides."),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, since(at, now)),
        _ => summary.restarts.to_string(),
    };
    let gates = items(pod, "/spec/readinessGates");
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let met = gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType")) == "True").count();
        format!("{met}/{}", gates.len())
    };
    vec![
        json!(name(pod)),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        or_none(text(pod, "/status/podIP")),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        json!(gates),
    ]
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<&'a str>,
    reason: String,
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    items(pod, "/status/conditions").iter().find(|c| c["type"] == kind).map_or("", |c| text(c, "/status"))
}

/// Whether an init container is a sidecar.
fn restarts_always(pod: &Value, container: &str) -> bool {
    items(pod, "/spec/initContainers")
        .iter()
        .any(|c| c["name"] == container && c["restartPolicy"] == "Always")
}

fn terminated(state: &Value, prefix: &str) -> String {
    match (text(state, "/reason"), integer(state, "/signal").unwrap_or(0)) {
        ("", 0) => format!("{prefix}ExitCode:{}", integer(state, "/exitCode").unwrap_or(0)),
        ("", signal) => format!("{prefix}Signal:{signal}"),
        (reason, _) => format!("{prefix}{reason}"),
    }
}

// === impl Summary ===

impl<'a> Summary<'a> {
    fn of(pod: &'a Value) -> Self {
        let inits = items(pod, "/spec/initContainers");
        let sidecars = inits.iter().filter(|c| c["restartPolicy"] == "Always").count();
        let phase = text(pod, "/status/phase");
        let given = text(pod, "/status/reason");
        let mut summary = Summary {
            ready: 0,
            total: items(pod, "/spec/containers").len() + sidecars,
            restarts: 0,
            last_restart: None,
            reason: if given.is_empty() { phase.to_owned() } else { given.to_owned() },
        };
        let gated = items(pod, "/status/conditions")
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
        if gated {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let sidecar_restarts = summary.init_containers(pod, inits.len());
        if let Some(restarts) = sidecar_restarts {
            summary.restarts = restarts;
            summary.containers(pod);
        }
        if is_deleting(pod) {
            if given == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    fn note_restart(&mut self, status: &'a Value) {
        self.restarts += integer(status, "/restartCount").unwrap_or(0);
        let finished = text(status, "/lastState/terminated/finishedAt");
        if !finished.is_empty() {
            self.last_restart = self.last_restart.max(Some(finished));
        }
    }

    /// Walks init containers; returns the sidecars' restarts when the pod is past them.
    fn init_containers(&mut self, pod: &'a Value, count: usize) -> Option<i64> {
        let mut sidecar_restarts = 0;
        for (at, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.note_restart(status);
            let sidecar = restarts_always(pod, text(status, "/name"));
            if sidecar {
                sidecar_restarts += integer(status, "/restartCount").unwrap_or(0);
            }
            let ended = &status["state"]["terminated"];
            if ended.is_object() && ended["exitCode"] == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = if ended.is_object() {
                terminated(ended, "Init:")
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{at}/{count}")
            };
            return (condition(pod, "Initialized") == "True").then_some(sidecar_restarts);
        }
        Some(sidecar_restarts)
    }

    fn containers(&mut self, pod: &'a Value) {
        let mut running = false;
        for status in items(pod, "/status/containerStatuses").iter().rev() {
            self.note_restart(status);
            let waiting = text(status, "/state/waiting/reason");
            let ended = &status["state"]["terminated"];
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if ended.is_object() {
                self.reason = terminated(ended, "");
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let word = if condition(pod, "Ready") == "True" { "Running" } else { "NotReady" };
            word.clone_into(&mut self.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: Value) -> Vec<Value> {
        let pod = json!({"metadata": {"name": "a"}, "status": status,
            "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}]}});
        cells(&pod, "2026-01-01T00:01:00Z".parse().unwrap())
    }

    #[test]
    fn sidecars_count_as_containers() {
        let row = row(json!({"phase": "Running",
            "initContainerStatuses": [{"name": "proxy", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:50Z"}}}]}));
        assert_eq!(row[1..4], [json!("2/2"), json!("Running"), json!("2 (10s ago)")]);
    }

    #[test]
    fn trouble_is_named() {
        let waiting = row(json!({"phase": "Pending",
            "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}));
        assert_eq!(waiting[2], "CrashLoopBackOff");
        let init = row(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "proxy", "state": {"running": {}}}]}),
        );
        assert_eq!(init[2], "Init:0/1");
    }
}
