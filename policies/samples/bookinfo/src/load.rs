//! A load in several protocols at once, for looking at what a change does to requests: nothing is tried again, and every failure is counted.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, client::legacy::connect::HttpConnector, rt::TokioExecutor};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, timeout},
};

/// An answer must come within this time.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Failures that are told in words.
const TOLD_MAX: usize = 8;

type Client = legacy::Client<HttpConnector, Full<Bytes>>;

/// What to call, each at the same rate.
#[derive(clap::Args)]
pub struct Load {
    /// A URL to call over kept HTTP/1.1 connections.
    #[arg(long)]
    http: Option<Uri>,
    /// A URL to call over HTTP/2 without TLS.
    #[arg(long)]
    http2: Option<Uri>,
    /// A URL to send gRPC-like requests to: HTTP/2 with a body both ways.
    #[arg(long)]
    grpc: Option<Uri>,
    /// Host and port that sends bytes back; a new connection each time.
    #[arg(long)]
    tcp: Option<String>,
    /// Calls a second of each kind.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Seconds until it ends.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// What came of the calls of one kind.
#[derive(Default)]
struct Tally {
    sent: u64,
    failed: u64,
    told: Vec<String>,
}

#[derive(Clone)]
enum Kind {
    Http(Client, Uri),
    Grpc(Client, Uri),
    Tcp(String),
}

/// Calls until the time is over and prints the figures as one line of JSON.
pub async fn run(load: Load) {
    let plain = || legacy::Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let second = || {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.retry_canceled_requests(false).http2_only(true).build_http()
    };
    let kinds = [
        ("http", load.http.map(|url| Kind::Http(plain(), url))),
        ("http2", load.http2.map(|url| Kind::Http(second(), url))),
        ("grpc", load.grpc.map(|url| Kind::Grpc(second(), url))),
        ("tcp", load.tcp.map(Kind::Tcp)),
    ];
    let tallies: Arc<Mutex<BTreeMap<&'static str, Tally>>> = Arc::default();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / load.rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + Duration::from_secs(load.seconds);
    let mut calls = tokio::task::JoinSet::new();
    while Instant::now() < end {
        tick.tick().await;
        for (name, kind) in kinds.iter().filter_map(|(name, kind)| Some((*name, kind.clone()?))) {
            let tallies = tallies.clone();
            calls.spawn(async move {
                let outcome = timeout(ANSWER_MAX, call(kind)).await.context("no answer").and_then(|it| it);
                let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
                let tally = tallies.entry(name).or_default();
                tally.sent += 1;
                if let Err(error) = outcome {
                    tally.failed += 1;
                    if tally.told.len() < TOLD_MAX {
                        tally.told.push(format!("{error:#}"));
                    }
                }
            });
        }
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
    let tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
    let figures: BTreeMap<_, Value> = tallies
        .iter()
        .map(|(name, it)| (*name, json!({"sent": it.sent, "failed": it.failed, "told": it.told})))
        .collect();
    println!("{}", json!(figures));
}

async fn call(kind: Kind) -> anyhow::Result<()> {
    match kind {
        Kind::Http(client, url) => {
            let request = Request::get(url).body(Full::default())?;
            let answer = client.request(request).await?;
            ensure!(answer.status() == 200, "status {}", answer.status());
            answer.into_body().collect().await.context("the answer breaks off")?;
        }
        Kind::Grpc(client, url) => {
            let message = Bytes::from_static(b"\0\0\0\0\x05hello");
            let request = Request::post(url)
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(message))?;
            let answer = client.request(request).await?;
            let status = answer.headers().get("grpc-status").cloned();
            ensure!(answer.status() == 200 && status.is_none(), "status {} {status:?}", answer.status());
            answer.into_body().collect().await.context("the answer breaks off")?;
        }
        Kind::Tcp(address) => {
            let mut stream = TcpStream::connect(address).await.context("connecting")?;
            stream.write_all(b"ping").await?;
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.context("nothing comes back")?;
            ensure!(&back == b"ping", "other bytes come back");
        }
    }
    Ok(())
}
