//! Live figures, read from the sidecars themselves: no Prometheus needed.

use crate::{
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
    metrics::{Histogram, Sample, parse},
};
use futures::{StreamExt, stream};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use policies_api::names::{SIDECAR_CONTAINER, ports::MERGED_METRICS};
use std::{fmt, time::Duration};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, time::Instant};

/// Proxies asked at once.
const AT_ONCE: usize = 16;

/// What flowed through the mesh in a while.
#[derive(Debug, Default)]
pub struct Figures {
    /// Requests a second, as the servers' sidecars counted them.
    pub requests_per_second: f64,
    /// Share of answers below 500, in percent.
    pub success_percent: f64,
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// Share of requests between sidecars that came by mutual TLS, in percent.
    pub mtls_percent: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} requests/s   success {:.1} %   p50 {:.1} ms   p99 {:.1} ms   mTLS {:.0} %",
            self.requests_per_second, self.success_percent, self.p50_ms, self.p99_ms, self.mtls_percent
        )
    }
}

/// Everything that one proxy exposed.
pub struct Scraped {
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// Reads the metrics of every running proxy in `namespace`, or in all.
pub async fn scrape(cluster: &Cluster, namespace: Option<&str>) -> Outcome<Vec<Scraped>> {
    let api: Api<Pod> = namespace
        .map_or_else(|| Api::all(cluster.client.clone()), |ns| Api::namespaced(cluster.client.clone(), ns));
    let pods = api.list(&ListParams::default()).await?;
    let meshed = pods
        .items
        .into_iter()
        .filter(has_proxy)
        .map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any()));
    let calls = stream::iter(meshed.map(|(namespace, name)| async move {
        let path =
            format!("/api/v1/namespaces/{namespace}/pods/{name}:{MERGED_METRICS}/proxy/stats/prometheus");
        let request = Request::get(path).body(Vec::new()).ok()?;
        let text = cluster.client.request_text(request).await.ok()?;
        Some(Scraped { samples: parse(&text) })
    }));
    Ok(calls.buffer_unordered(AT_ONCE).filter_map(|scraped| async { scraped }).collect().await)
}

/// Whether a pod runs a proxy, as a sidecar or as a gateway.
pub fn has_proxy(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let running = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    running && all.into_iter().any(|container| container.name == SIDECAR_CONTAINER)
}

/// Watches for `length` and says what flowed.
pub async fn over(cluster: &Cluster, length: Duration) -> Outcome<Figures> {
    let before = scrape(cluster, None).await?;
    let started = Instant::now();
    tokio::time::sleep(length).await;
    let after = scrape(cluster, None).await?;
    Ok(difference(&before, &after, started.elapsed()))
}

fn difference(before: &[Scraped], after: &[Scraped], length: Duration) -> Figures {
    let total = |all: &[Scraped], keep: &dyn Fn(&Sample) -> bool| -> f64 {
        all.iter()
            .flat_map(|s| &s.samples)
            .filter(|s| s.name == "istio_requests_total" && s.label("reporter") == "destination" && keep(s))
            .map(|s| s.value)
            .sum()
    };
    let change = |keep: &dyn Fn(&Sample) -> bool| (total(after, keep) - total(before, keep)).max(0.0);
    let requests = change(&|_| true);
    let share = |part: f64| if requests > 0.0 { 100.0 * part / requests } else { 0.0 };
    let client = |s: &Sample| {
        s.name == "istio_request_duration_milliseconds_bucket" && s.label("reporter") == "source"
    };
    let latency =
        Histogram::difference(samples(before).filter(|s| client(s)), samples(after).filter(|s| client(s)));
    Figures {
        requests_per_second: requests / length.as_secs_f64().max(0.001),
        success_percent: share(change(&|s| !s.label("response_code").starts_with('5'))),
        p50_ms: latency.quantile(0.5),
        p99_ms: latency.quantile(0.99),
        mtls_percent: share(change(&|s| s.label("connection_security_policy") == "mutual_tls")),
    }
}

fn samples(all: &[Scraped]) -> impl Iterator<Item = &Sample> {
    all.iter().flat_map(|scraped| &scraped.samples)
}

/// Waits until a URL on this machine answers 200.
pub async fn answering(url: &str, within: Duration) -> Outcome {
    let deadline = Instant::now() + within;
    loop {
        let last = match status_of(url).await {
            Ok(line) if line.contains(" 200") => return Ok(()),
            Ok(line) => line,
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(Failure::new(
                Exit::TimedOut,
                format!("{url} does not answer 200 after {within:?}; last: {last}"),
            )
            .fix("meshctl proxy list"));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The status line of one GET.
async fn status_of(url: &str) -> std::io::Result<String> {
    let uri: http::Uri = url.parse().map_err(std::io::Error::other)?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let exchange = async {
        let mut stream = TcpStream::connect(&authority).await?;
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await?;
        let mut head = vec![0; 256];
        let length = stream.read(&mut head).await?;
        Ok(String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned())
    };
    tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
