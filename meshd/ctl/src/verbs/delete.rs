//! `delete`: objects by kind and name, or those of files.

use super::apply::read_all;
use crate::{
    args::NamespaceOptions,
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
    place::Place,
};
use kube::api::DeleteParams;
use std::path::PathBuf;

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Kind, or `kind/name`.
    kind: Option<String>,
    /// Names.
    names: Vec<String>,
    /// Delete the objects of these files instead.
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    namespace: NamespaceOptions,
    /// An object that is not there is no failure.
    #[arg(long)]
    ignore_not_found: bool,
}

/// Runs the command.
pub async fn run(place: &Place, delete: Delete) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let mut wanted = Vec::new();
    if !delete.filename.is_empty() {
        for source in read_all(&delete.filename)? {
            let document = &source.document.value;
            let kind = cluster.kind_of(document).await.map_err(|f| source.failure(f))?;
            let namespace =
                document["metadata"]["namespace"].as_str().unwrap_or(&delete.namespace.namespace).to_owned();
            wanted.push((
                kind,
                namespace,
                document["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        // Last made, first gone.
        wanted.reverse();
    } else if let Some(words) = &delete.kind {
        let (kind, names) = match words.split_once('/') {
            Some((kind, name)) => (kind, vec![name.to_owned()]),
            None => (words.as_str(), delete.names.clone()),
        };
        let kind = cluster.kind_named(kind).await?;
        wanted.extend(names.into_iter().map(|name| (kind.clone(), delete.namespace.namespace.clone(), name)));
    }
    if wanted.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing is named")
            .fix("meshctl delete virtualservice reviews, or meshctl delete -f file.yaml"));
    }
    for (kind, namespace, name) in wanted {
        let label = format!("{} \"{name}\"", kind.resource.kind.to_ascii_lowercase());
        match cluster.api(&kind, Some(&namespace)).delete(&name, &DeleteParams::default()).await {
            Ok(_) => println!("{label} deleted"),
            Err(kube::Error::Api(status)) if status.code == 404 && delete.ignore_not_found => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
