//! `fault`: delays and errors, by writing an ordinary VirtualService.

use super::canary::{store, virtual_service};
use crate::{
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
    output::table,
    place::Place,
};
use serde_json::{Value, json};

/// What to do to requests.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Delay requests.
    #[command(
        after_help = "Example:\n  meshctl fault delay ratings --ms 7000 --percent 100 --match end-user=jason"
    )]
    Delay {
        #[command(flatten)]
        target: Target,
        /// Milliseconds.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600_000))]
        ms: u64,
    },
    /// Answer requests with an error.
    #[command(after_help = "Example:\n  meshctl fault abort ratings --status 503 --percent 10")]
    Abort {
        #[command(flatten)]
        target: Target,
        /// HTTP status.
        #[arg(long, default_value_t = 503, value_parser = clap::value_parser!(u16).range(200..=599))]
        status: u16,
    },
    /// Show services with faults.
    List {
        /// Namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Take all faults of a service away.
    Clear {
        /// The service.
        service: String,
        /// Namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
}

/// Which requests.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The service.
    service: String,
    /// Share of requests in percent, down to 0.0001.
    #[arg(long, default_value_t = 100.0)]
    percent: f64,
    /// Only requests with this header: `name=value`.
    #[arg(long = "match", value_name = "HEADER=VALUE")]
    header: Option<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// Runs the command.
pub async fn run(place: &Place, command: Command) -> Outcome {
    let cluster = Cluster::open(place).await?;
    match command {
        Command::Delay { target, ms } => {
            let fixed = base_types::duration::format(std::time::Duration::from_millis(ms));
            inject(
                &cluster,
                &target,
                json!({"delay": {"fixedDelay": fixed, "percentage": {"value": target.percent}}}),
            )
            .await
        }
        Command::Abort { target, status } => {
            inject(
                &cluster,
                &target,
                json!({"abort": {"httpStatus": status, "percentage": {"value": target.percent}}}),
            )
            .await
        }
        Command::List { namespace } => list(&cluster, &namespace).await,
        Command::Clear { service, namespace } => clear(&cluster, &service, &namespace).await,
    }
}

async fn inject(cluster: &Cluster, target: &Target, fault: Value) -> Outcome {
    if !(0.0..=100.0).contains(&target.percent) {
        return Err(Failure::new(Exit::Usage, "--percent must be 0 to 100"));
    }
    let mut object = virtual_service(cluster, &target.service, &target.namespace).await?;
    let http = &mut object["spec"]["http"];
    if http.as_array().is_none_or(Vec::is_empty) {
        *http = json!([{"route": [{"destination": {"host": target.service}}]}]);
    }
    let routes =
        http.as_array_mut().ok_or_else(|| Failure::new(Exit::BadInput, "spec.http must be a list"))?;
    match &target.header {
        Some(header) => {
            let (name, value) = header
                .split_once('=')
                .ok_or_else(|| Failure::new(Exit::Usage, "--match must be HEADER=VALUE"))?;
            let condition = json!([{"headers": {name.to_ascii_lowercase(): {"exact": value}}}]);
            routes.retain(|route| route["match"] != condition || route["fault"].is_null());
            let mut special = routes.last().cloned().unwrap_or_default();
            special["match"] = condition;
            special["fault"] = fault;
            routes.insert(0, special);
        }
        None => routes.iter_mut().for_each(|route| route["fault"] = fault.clone()),
    }
    store(cluster, &object, &target.namespace).await
}

async fn clear(cluster: &Cluster, service: &str, namespace: &str) -> Outcome {
    let mut object = virtual_service(cluster, service, namespace).await?;
    let Some(routes) = object["spec"]["http"].as_array_mut() else {
        println!("{service} has no faults");
        return Ok(());
    };
    for route in routes.iter_mut().filter_map(Value::as_object_mut) {
        route.remove("fault");
    }
    // A route that was there for a fault alone now repeats the last one.
    let last = routes.last().map(|route| route["route"].clone()).unwrap_or_default();
    let count = routes.len();
    let mut index = 0;
    routes.retain(|route| {
        index += 1;
        index == count || route["match"].is_null() || route["route"] != last
    });
    store(cluster, &object, namespace).await
}

/// A fault in words: `delay 7s for 100 %, abort 503 for 10 %`.
pub fn words(fault: &Value) -> String {
    let percent = |part: &Value| part["percentage"]["value"].as_f64().unwrap_or(100.0);
    let mut parts = Vec::new();
    if let Some(delay) = fault["delay"]["fixedDelay"].as_str() {
        parts.push(format!("delay {delay} for {} %", percent(&fault["delay"])));
    }
    let abort = &fault["abort"];
    let status = abort["httpStatus"]
        .as_u64()
        .map(|s| s.to_string())
        .or(abort["grpcStatus"].as_str().map(str::to_owned));
    if let Some(status) = status {
        parts.push(format!("abort {status} for {} %", percent(abort)));
    }
    parts.join(", ")
}

async fn list(cluster: &Cluster, namespace: &str) -> Outcome {
    let kind = cluster.kind_named("virtualservice").await?;
    let all = cluster.api(&kind, Some(namespace)).list(&Default::default()).await?;
    let mut rows = Vec::new();
    for object in &all.items {
        for (index, route) in object.data["spec"]["http"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .filter(|(_, r)| !r["fault"].is_null())
        {
            rows.push(vec![
                object.metadata.name.clone().unwrap_or_default(),
                format!("http[{index}]"),
                if route["match"].is_null() { "all requests".into() } else { route["match"].to_string() },
                words(&route["fault"]),
            ]);
        }
    }
    table(&["VIRTUALSERVICE", "ROUTE", "MATCH", "FAULT"], rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_in_words() {
        let fault = json!({"delay": {"fixedDelay": "7s", "percentage": {"value": 100.0}}, "abort": {"httpStatus": 503, "percentage": {"value": 0.5}}});
        assert_eq!(words(&fault), "delay 7s for 100 %, abort 503 for 0.5 %");
    }
}
