//! `stat`: live traffic by workload, from the sidecars themselves.

use crate::{
    cluster_client::Cluster,
    failure::Outcome,
    figures::{Scraped, scrape},
    metrics::{Histogram, Sample},
    output::{Format, structured, table},
    place::Place,
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct Stat {
    /// Namespace; all when none is named.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Seconds to watch.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What flowed to one workload.
#[derive(Debug, Default)]
struct Row {
    requests: f64,
    good: f64,
    mtls: f64,
    before: Vec<Sample>,
    after: Vec<Sample>,
}

/// Runs the command.
pub async fn run(place: &Place, stat: Stat) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let before = scrape(&cluster, stat.namespace.as_deref()).await?;
    let started = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(stat.seconds)).await;
    let after = scrape(&cluster, stat.namespace.as_deref()).await?;
    let seconds = started.elapsed().as_secs_f64();
    let rows = by_workload(&before, &after);
    let shown: Vec<_> = rows
        .iter()
        .map(|((namespace, workload, version), row)| {
            let percent = |part: f64| if row.requests > 0.0 { 100.0 * part / row.requests } else { 0.0 };
            let latency = Histogram::difference(row.before.iter(), row.after.iter());
            json!({
                "namespace": namespace, "workload": workload, "version": version,
                "success": percent(row.good), "rps": row.requests / seconds, "mtls": percent(row.mtls),
                "p50": latency.quantile(0.5), "p95": latency.quantile(0.95), "p99": latency.quantile(0.99),
            })
        })
        .collect();
    if structured(stat.output, &json!(shown))? {
        return Ok(());
    }
    let cells = shown.iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str, digits: usize| format!("{:.digits$}", row[key].as_f64().unwrap_or(0.0));
        vec![
            text("namespace"),
            text("workload"),
            text("version"),
            number("success", 2) + "%",
            number("rps", 1),
            number("p50", 1),
            number("p95", 1),
            number("p99", 1),
            number("mtls", 0) + "%",
        ]
    });
    table(&["NAMESPACE", "WORKLOAD", "VERSION", "SUCCESS", "RPS", "P50", "P95", "P99", "MTLS"], cells);
    Ok(())
}

type Workload = (String, String, String);

/// Sums what servers' sidecars and gateways counted, by the workload that answered.
fn by_workload(before: &[Scraped], after: &[Scraped]) -> BTreeMap<Workload, Row> {
    let mut rows: BTreeMap<Workload, Row> = BTreeMap::new();
    for (all, sign) in [(before, -1.0), (after, 1.0)] {
        for sample in
            all.iter().flat_map(|scraped| &scraped.samples).filter(|s| s.label("reporter") == "destination")
        {
            let workload = ["destination_workload_namespace", "destination_workload", "destination_version"]
                .map(|l| sample.label(l).to_owned());
            let row = rows.entry(workload.into()).or_default();
            match sample.name.as_str() {
                "istio_requests_total" => {
                    let value = sign * sample.value;
                    row.requests += value;
                    row.good += if sample.label("response_code").starts_with('5') { 0.0 } else { value };
                    row.mtls +=
                        if sample.label("connection_security_policy") == "mutual_tls" { value } else { 0.0 };
                }
                "istio_request_duration_milliseconds_bucket" if sign < 0.0 => row.before.push(sample.clone()),
                "istio_request_duration_milliseconds_bucket" => row.after.push(sample.clone()),
                _ => {}
            }
        }
    }
    rows.retain(|_, row| row.requests > 0.0);
    rows
}
