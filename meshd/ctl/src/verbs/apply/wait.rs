//! Waiting until every proxy has acknowledged a policy, as its status says.

use crate::{
    cluster_client::{Cluster, Kind},
    failure::{Exit, Failure, Outcome},
};
use futures::StreamExt;
use kube::{
    ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, WatchEvent, WatchParams},
};
use serde_json::Value;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// How a policy reached the proxies.
#[derive(Debug)]
pub struct Reached {
    /// Proxies to which something was sent.
    pub affected: u64,
    /// Of these, how many have it in force.
    pub acked: u64,
    /// From the request to the last acknowledgement that was seen.
    pub took: Duration,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acked {}/{} proxies in {:.0} ms",
            self.acked,
            self.affected,
            self.took.as_secs_f64() * 1000.0
        )
    }
}

/// Waits for the condition `Programmed` of the object's generation.
pub async fn programmed(
    cluster: &Cluster,
    object: &DynamicObject,
    started: Instant,
    timeout: Duration,
) -> Outcome<Reached> {
    let types = object.types.clone().unwrap_or_default();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let plural = format!("{}s", types.kind.to_ascii_lowercase())
        .replace("policys", "policies")
        .replace("ntrys", "ntries")
        .replace("trys", "tries");
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &types.kind), &plural);
    let api = cluster.api(&Kind { resource, namespaced: true }, object.namespace().as_deref());
    let name = object.name_any();
    let mut last = judge(object, started)?;
    if let Some(reached) = last.take() {
        return Ok(reached);
    }
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
    let mut seen = "no proxy has answered".to_owned();
    let watch = async {
        let mut stream =
            api.watch(&params, object.metadata.resource_version.as_deref().unwrap_or("0")).await?.boxed();
        while let Some(event) = stream.next().await {
            match event? {
                WatchEvent::Added(now) | WatchEvent::Modified(now) => {
                    seen = condition(&now).and_then(|c| c["message"].as_str()).unwrap_or(&seen).to_owned();
                    if let Some(reached) = judge_against(&now, object, started)? {
                        return Ok(reached);
                    }
                }
                WatchEvent::Deleted(_) => {
                    return Err(Failure::new(Exit::Failed, format!("{name} was deleted meanwhile")));
                }
                WatchEvent::Error(status) => return Err(Failure::new(Exit::Failed, status.message.clone())),
                WatchEvent::Bookmark(_) => {}
            }
        }
        Err(Failure::new(Exit::Failed, "the watch ended"))
    };
    match tokio::time::timeout(timeout, watch).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(
            Exit::TimedOut,
            format!("{name} is stored, but not every proxy has it after {timeout:?}: {seen}"),
        )
        .fix("meshctl proxy list")),
    }
}

fn judge(object: &DynamicObject, started: Instant) -> Outcome<Option<Reached>> {
    judge_against(object, object, started)
}

/// `Some` once the status speaks of the wanted generation and every proxy has it.
fn judge_against(now: &DynamicObject, wanted: &DynamicObject, started: Instant) -> Outcome<Option<Reached>> {
    let status = &now.data["status"];
    let Some(condition) = condition(now) else { return Ok(None) };
    if condition["observedGeneration"].as_i64() < wanted.metadata.generation {
        return Ok(None);
    }
    let message = condition["message"].as_str().unwrap_or_default();
    match condition["reason"].as_str() {
        Some("Rejected") => {
            Err(Failure::new(Exit::Failed, format!("proxies refuse it: {message}")).fix("meshctl proxy list"))
        }
        Some("Invalid") => Err(Failure::new(Exit::BadInput, message)),
        _ if condition["status"] == "True" => {
            let number = |key: &str| status["proxies"][key].as_u64().unwrap_or(0);
            Ok(Some(Reached {
                affected: number("affected"),
                acked: number("acked"),
                took: started.elapsed(),
            }))
        }
        _ => Ok(None),
    }
}

fn condition(object: &DynamicObject) -> Option<&Value> {
    object.data["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Programmed")
}
