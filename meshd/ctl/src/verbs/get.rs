//! `get`: objects as the server prints them.

use crate::{
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
    output::{Format, structured, table},
    place::Place,
};
use http::Request;
use kube::{ResourceExt, api::ListParams, core::DynamicObject};
use serde_json::Value;

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Get {
    /// Kind: `vs`, `virtualservices`, `pods` …
    kind: String,
    /// Name of one object.
    object: Option<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Label selector.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Runs the command.
pub async fn run(place: &Place, get: Get) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let (kind_name, object) = match get.kind.split_once('/') {
        Some((kind, name)) => (kind, Some(name.to_owned())),
        None => (get.kind.as_str(), get.object.clone()),
    };
    let kind = cluster.kind_named(kind_name).await?;
    let namespace = (!get.all_namespaces).then_some(get.namespace.as_str());
    let api = cluster.api(&kind, namespace);
    if matches!(get.output, Format::Table | Format::Wide) {
        let mut path = api.resource_url().to_owned();
        if let Some(name) = &object {
            path += &format!("/{name}");
        } else if let Some(selector) = &get.selector {
            path += &format!("?labelSelector={}", selector.replace('=', "%3D").replace(',', "%2C"));
        }
        let request = Request::get(path)
            .header("accept", TABLE)
            .body(Vec::new())
            .map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        let answer: Value = cluster.client.request(request).await?;
        print_table(&answer, get.output == Format::Wide, get.all_namespaces && kind.namespaced);
        return Ok(());
    }
    let found: Vec<DynamicObject> = match &object {
        Some(name) => vec![api.get(name).await?],
        None => api.list(&get.selector.iter().fold(ListParams::default(), |p, s| p.labels(s))).await?.items,
    };
    if get.output == Format::Name {
        found
            .iter()
            .for_each(|one| println!("{}/{}", kind.resource.kind.to_ascii_lowercase(), one.name_any()));
        return Ok(());
    }
    let values: Vec<Value> = found.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    let whole = if object.is_some() {
        values.into_iter().next().unwrap_or_default()
    } else {
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values})
    };
    structured(get.output, &whole).map(|_| ())
}

fn print_table(answer: &Value, wide: bool, with_namespace: bool) {
    let columns: Vec<(usize, &str)> = answer["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(index, column)| (index, column["name"].as_str().unwrap_or_default()))
        .collect();
    let rows: Vec<&Value> = answer["rows"].as_array().into_iter().flatten().collect();
    if rows.is_empty() {
        eprintln!("No resources found.");
        return;
    }
    let mut heads: Vec<String> = columns.iter().map(|(_, name)| name.to_ascii_uppercase()).collect();
    if with_namespace {
        heads.insert(0, "NAMESPACE".into());
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    table(
        &heads,
        rows.into_iter().map(|row| {
            let mut cells: Vec<String> =
                columns.iter().map(|(index, _)| text(&row["cells"][*index])).collect();
            if with_namespace {
                cells.insert(0, row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().into());
            }
            cells
        }),
    );
}

fn text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}
