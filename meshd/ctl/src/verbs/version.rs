//! `version`.

use crate::{
    args::OutputOptions, cluster_client::Cluster, failure::Outcome, output::structured, place::Place,
};
use serde_json::json;

/// Prints the versions of this program and, when it answers, of the server.
pub async fn run(place: &Place, options: OutputOptions) -> Outcome {
    let server = match Cluster::open(place).await {
        Ok(cluster) => {
            tokio::time::timeout(std::time::Duration::from_secs(3), cluster.client.apiserver_version())
                .await
                .ok()
                .and_then(Result::ok)
        }
        Err(_) => None,
    };
    let server = server.map(|version| version.git_version);
    let client = env!("CARGO_PKG_VERSION");
    if !structured(options.output, &json!({"client": client, "server": server}))? {
        println!("meshctl {client}");
        println!("server  {}", server.as_deref().unwrap_or("not running"));
    }
    Ok(())
}
