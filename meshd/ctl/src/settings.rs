//! What a cluster is started with: what is asked for, else what runs, else what it was started with before, else the defaults.

use crate::{
    control,
    failure::{Exit, Failure, Outcome},
    place::Place,
};
use serde_json::Value;

/// How many nodes, and which ports of 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Nodes.
    pub nodes: u8,
    /// Port of the Kubernetes API.
    pub api_port: u16,
    /// Port of the ingress gateway.
    pub ingress_port: u16,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// `--nodes`.
    pub nodes: Option<u8>,
    /// `--api-port`.
    pub api_port: Option<u16>,
    /// `--ingress-port`.
    pub ingress_port: Option<u16>,
}

const DEFAULTS: Settings = Settings { nodes: 2, api_port: 6443, ingress_port: 8080 };

/// Settles what to start with, or to go on with.
pub async fn settle(place: &Place, asked: Asked) -> Outcome<Settings> {
    match control::status(&place.socket()).await? {
        Some(status) => compatible(asked, of_status(&status)),
        None => Ok(choose(asked, saved(place)?)),
    }
}

fn choose(asked: Asked, before: Settings) -> Settings {
    Settings {
        nodes: asked.nodes.unwrap_or(before.nodes),
        api_port: asked.api_port.unwrap_or(before.api_port),
        ingress_port: asked.ingress_port.unwrap_or(before.ingress_port),
    }
}

/// A cluster that runs is not changed by starting it once more.
fn compatible(asked: Asked, runs: Settings) -> Outcome<Settings> {
    let wanted = choose(asked, runs);
    let differs = [
        ("--nodes", u16::from(wanted.nodes), u16::from(runs.nodes)),
        ("--api-port", wanted.api_port, runs.api_port),
        ("--ingress-port", wanted.ingress_port, runs.ingress_port),
    ];
    match differs.into_iter().find(|(_, wanted, runs)| wanted != runs) {
        None => Ok(runs),
        Some((flag, wanted, runs)) => {
            Err(Failure::new(Exit::Failed, format!("the cluster runs with {flag} {runs}, not {wanted}"))
                .fix(format!("leave {flag} out, or: meshctl stop && meshctl up {flag} {wanted}")))
        }
    }
}

fn of_status(status: &Value) -> Settings {
    let port = |key: &str, default| {
        let text = status[key].as_str().unwrap_or_default();
        text.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(default)
    };
    let nodes = status["nodes"].as_array().and_then(|nodes| u8::try_from(nodes.len()).ok());
    Settings {
        nodes: nodes.unwrap_or(DEFAULTS.nodes),
        api_port: port("api", DEFAULTS.api_port),
        ingress_port: port("ingress", DEFAULTS.ingress_port),
    }
}

/// What the cluster process wrote when it was started last.
fn saved(place: &Place) -> Outcome<Settings> {
    let path = place.data_dir().join("settings.json");
    let text = match std::fs::read_to_string(&path) {
        // Nobody but root may look; that only root can start a cluster is said later, and better.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(DEFAULTS);
        }
        text => text?,
    };
    read(&text).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("{} is damaged", path.display())).fix(format!(
            "delete it, and give --nodes, --api-port and --ingress-port again: rm {}",
            path.display()
        ))
    })
}

fn read(text: &str) -> Option<Settings> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = |key: &str| value[key].as_u64().filter(|number| *number > 0);
    Some(Settings {
        nodes: u8::try_from(number("nodes")?).ok()?,
        api_port: u16::try_from(number("apiPort")?).ok()?,
        ingress_port: u16::try_from(number("ingressPort")?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BEFORE: Settings = Settings { nodes: 3, api_port: 7443, ingress_port: 9080 };

    #[test]
    fn flags_come_before_what_was_saved() {
        assert_eq!(choose(Asked::default(), BEFORE), BEFORE);
        let asked = Asked { api_port: Some(1), ..Asked::default() };
        assert_eq!(choose(asked, BEFORE), Settings { api_port: 1, ..BEFORE });
        assert_eq!(read(r#"{"nodes": 3, "apiPort": 7443, "ingressPort": 9080}"#), Some(BEFORE));
        for damaged in ["", "{}", r#"{"nodes": 300, "apiPort": 7443, "ingressPort": 9080}"#] {
            assert_eq!(read(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn a_running_cluster_is_not_changed() {
        let status = json!({"api": "https://127.0.0.1:7443", "ingress": "http://127.0.0.1:9080", "nodes": [{}, {}, {}]});
        assert_eq!(of_status(&status), BEFORE);
        assert_eq!(compatible(Asked { nodes: Some(3), ..Asked::default() }, BEFORE).unwrap(), BEFORE);
        let refused = compatible(Asked { api_port: Some(6443), ..Asked::default() }, BEFORE).unwrap_err();
        assert!(refused.to_string().contains("--api-port 7443, not 6443"), "{refused}");
    }
}
