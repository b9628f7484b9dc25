//! `apply`: objects from files, all or none, and the wait until every proxy has them.

mod check;
mod files;
mod wait;
mod words;

pub use files::{Source, read_all};
pub use wait::{Reached, programmed};

use crate::{
    args::NamespaceOptions,
    cluster_client::{Applied, Cluster},
    failure::{Exit, Failure, Outcome},
    output::{Format, structured},
    place::Place,
};
use kube::{
    ResourceExt,
    api::{DynamicObject, PostParams},
};
use policies_api::Kind;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// Files or directories; `-` reads standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Files or directories, without `-f`.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    namespace: NamespaceOptions,
    /// Do not wait for proxies.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for proxies.
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Check everything, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

fn duration(text: &str) -> Result<Duration, String> {
    base_types::duration::parse(text).map_err(|e| e.to_string())
}

/// Runs the command.
pub async fn run(place: &Place, apply: Apply) -> Outcome {
    let paths: Vec<PathBuf> = apply.filename.iter().chain(&apply.files).cloned().collect();
    if paths.is_empty() {
        return Err(Failure::new(Exit::Usage, "no file is named").fix("meshctl apply -f virtualservice.yaml"));
    }
    let sources = read_all(&paths)?;
    check::alone(&sources)?;
    let cluster = Cluster::open(place).await?;
    let namespace = &apply.namespace.namespace;
    check::together(&cluster, &sources, namespace).await?;
    check_all(&cluster, &sources, namespace).await?;
    if apply.dry_run {
        println!("{} objects are valid; nothing was changed", sources.len());
        return Ok(());
    }
    let mut results = Vec::new();
    for source in &sources {
        let started = tokio::time::Instant::now();
        let applied =
            cluster.apply(&source.document.value, namespace).await.map_err(|f| source.failure(f))?;
        let reached =
            if apply.no_wait { None } else { wait(&cluster, &applied, started, apply.timeout).await? };
        results.push(report(apply.output, source, &applied, reached.as_ref()));
    }
    structured(apply.output, &Value::from(results)).map(|_| ())
}

/// Every object is tried without effect first: an invalid one refuses the whole.
async fn check_all(cluster: &Cluster, sources: &[Source], namespace: &str) -> Outcome {
    let new_namespaces: Vec<&str> = sources
        .iter()
        .map(|s| &s.document.value)
        .filter(|v| v["kind"] == "Namespace")
        .filter_map(|v| v["metadata"]["name"].as_str())
        .collect();
    let new_kinds = sources.iter().any(|s| s.document.value["kind"] == "CustomResourceDefinition");
    for source in sources {
        let document = &source.document.value;
        let kind = match cluster.kind_of(document).await {
            Ok(kind) => kind,
            // Its definition may be in the same files.
            Err(_) if new_kinds => continue,
            Err(failure) => return Err(source.failure(failure)),
        };
        let own = document["metadata"]["namespace"].as_str().unwrap_or(namespace);
        if new_namespaces.contains(&own) {
            continue;
        }
        let api = cluster.api(&kind, Some(own));
        let mut object: DynamicObject = serde_json::from_value(document.clone())?;
        // A file that was printed by `get` has them; as something new it may not.
        (object.metadata.resource_version, object.metadata.uid) = (None, None);
        let params = PostParams { dry_run: true, field_manager: Some("meshctl".into()) };
        match api.create(&params, &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(source.failure(error.into())),
        }
    }
    Ok(())
}

/// Waits when it is a policy: other kinds reach no proxy.
async fn wait(
    cluster: &Cluster,
    applied: &Applied,
    started: tokio::time::Instant,
    timeout: Duration,
) -> Outcome<Option<Reached>> {
    let (Applied::Created(object) | Applied::Configured { new: object, .. } | Applied::Unchanged(object)) =
        applied;
    let Some(types) = &object.types else { return Ok(None) };
    if Kind::of(&types.api_version, &types.kind).is_none() {
        return Ok(None);
    }
    programmed(cluster, object, started, timeout).await.map(Some)
}

/// Says what happened in words, or returns it for a program.
fn report(output: Format, source: &Source, applied: &Applied, reached: Option<&Reached>) -> Value {
    let (verb, object, change) = match applied {
        Applied::Created(object) => ("created", object, String::new()),
        Applied::Unchanged(object) => ("unchanged", object, String::new()),
        Applied::Configured { old, new } => ("configured", new, words::change(&old.data, &new.data)),
    };
    let name = format!(
        "{}/{}",
        source.document.value["kind"].as_str().unwrap_or_default().to_ascii_lowercase(),
        object.name_any()
    );
    if !matches!(output, Format::Json | Format::Yaml) {
        let change = if change.is_empty() { String::new() } else { format!("   ({change})") };
        println!("{name} {verb}{change}");
        if let Some(reached) = reached {
            println!("  {reached}");
        }
    }
    json!({
        "object": name, "namespace": object.namespace(), "action": verb, "change": change,
        "acked": reached.map(|r| r.acked), "affected": reached.map(|r| r.affected), "milliseconds": reached.map(|r| r.took.as_secs_f64() * 1000.0),
    })
}
