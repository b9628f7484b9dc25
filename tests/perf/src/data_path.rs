//! The data path: all peers in turns, closed loop for capacity, open loop for latency.

use crate::entry::Entry;
use crate::load::{self, Handshakes, Load, Window};
use crate::peers::{Running, Surroundings};
use crate::summary::{Summary, percentile, summary};
use crate::system;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections of the closed loop.
const CONNECTIONS: usize = 64;
/// Requests a second of the open loop, and its connections.
const RATE: u32 = 2_000;
const RATE_CONNECTIONS: u32 = 16;
/// Connections with HTTP/2, and requests under way on each.
const HTTP2_CONNECTIONS: usize = 10;
const HTTP2_STREAMS: usize = 32;
/// Connections that read bytes.
const BYTES_CONNECTIONS: usize = 4;
/// Clients that open a connection for each request, or for each handshake.
const CONNECTING: usize = 32;
const WARM: Duration = Duration::from_millis(300);
/// A round with a larger share of the machine used by others is repeated.
const FOREIGN_PERCENT_MAX: f64 = 5.0;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    pub rounds: usize,
    pub time: Duration,
    /// Rounds that others disturbed are repeated so often in all.
    pub repeats: usize,
    /// Cases of which the title contains this; all when it is empty.
    pub case: String,
}

/// What is done to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Closed,
    Open,
    Streams,
    Bytes,
    Connections,
    Handshakes(Handshakes),
}

/// One case: a row for each way that requests went.
#[derive(Debug)]
pub struct Case {
    pub title: &'static str,
    pub goal: &'static str,
    pub kind: Kind,
    pub rows: Vec<Row>,
}

/// Figures of one way in one case.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// Requests, connections or bytes.
    pub per_second: Summary,
    /// Processor time of all proxies for one of them, microseconds.
    pub cpu: Summary,
    pub p50: Summary,
    pub p99: Summary,
    /// Share of the machine that others used, percent.
    pub foreign: Summary,
}

struct Round {
    per_second: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
    foreign: f64,
}

/// A way to the backend: its name, where it starts, and the proxies on it.
type Way<'a> = (&'static str, u16, Option<&'a Running>);

/// Title, entry, kind, and what is hoped for. Numbers are those of the project's list of cases.
const CASES: [(&str, Entry, Kind, &str); 13] = [
    ("1: one hop, HTTP/1.1", Entry::Hop, Kind::Closed, "3.5 × Envoy, HAProxy"),
    (
        "9: one hop with 20 header routes, access log, statistics, retries, fault filter",
        Entry::Features,
        Kind::Closed,
        "at most 5 % dearer than case 1",
    ),
    ("3: mesh, mTLS with HTTP/2", Entry::MeshHttp2, Kind::Closed, "3.5 × Envoy"),
    ("3h1: mesh, mTLS with HTTP/1.1", Entry::MeshHttp1, Kind::Closed, "3.5 × Envoy, HAProxy"),
    (
        "4: one hop, HTTP/2 without TLS, 10 connections × 32 streams",
        Entry::Http2,
        Kind::Streams,
        "2.5 × Envoy",
    ),
    ("2: one hop at 2,000/s", Entry::Hop, Kind::Open, "0.5 × CPU of Envoy"),
    ("3r: mesh (HTTP/2) at 2,000/s", Entry::MeshHttp2, Kind::Open, "0.4 × CPU and 0.5 × p50 of Envoy"),
    ("5: bytes, plain", Entry::Bytes, Kind::Bytes, "0.35 s/GB"),
    ("5m: bytes, mTLS between two proxies", Entry::MeshBytes, Kind::Bytes, "1.2 s/GB"),
    ("6: new connection for each request, one hop", Entry::Hop, Kind::Connections, "2.2 × Envoy"),
    ("6m: new connection for each request, mesh", Entry::MeshHttp2, Kind::Connections, "2.5 × Envoy"),
    (
        "6f: full mTLS handshakes, with one request",
        Entry::Inbound,
        Kind::Handshakes(Handshakes::Full),
        "1.3 × Envoy",
    ),
    (
        "6r: resumed mTLS handshakes, with one request",
        Entry::Inbound,
        Kind::Handshakes(Handshakes::Resumed),
        "1.1 × Envoy",
    ),
];

/// Measures all cases.
pub fn measure(plan: &Plan, running: &[Running], around: &Surroundings) -> Result<Vec<Case>> {
    let mut repeats = plan.repeats;
    let chosen = CASES.iter().filter(|case| case.0.contains(&plan.case));
    chosen
        .map(|(title, entry, kind, goal)| {
            let mut ways: Vec<Way<'_>> = running
                .iter()
                .filter(|it| it.carries(*entry))
                // Their case is TLS, of which a loop that copies has none.
                .filter(|it| !matches!(kind, Kind::Handshakes(_)) || it.carries(Entry::MeshBytes))
                .map(|it| (it.name, it.port(*entry), Some(it)))
                .collect();
            if matches!(kind, Kind::Closed | Kind::Open | Kind::Streams) {
                ways.push(("direct", entry.direct(), None));
            }
            let rows = case(plan, title, *kind, &ways, &mut repeats, around)?;
            Ok(Case { title, goal, kind: *kind, rows })
        })
        .collect()
}

fn case(
    plan: &Plan,
    title: &str,
    kind: Kind,
    ways: &[Way<'_>],
    repeats: &mut usize,
    around: &Surroundings,
) -> Result<Vec<Row>> {
    let mut rounds: Vec<Vec<Round>> = ways.iter().map(|_| Vec::new()).collect();
    for number in 1..=plan.rounds {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            let mut best = round(plan, kind, way, around)?;
            if best.foreign > FOREIGN_PERCENT_MAX && *repeats > 0 {
                *repeats -= 1;
                let again = round(plan, kind, way, around)?;
                if again.foreign < best.foreign {
                    best = again;
                }
            }
            eprintln!(
                "{title}, round {number}, {}: {:.0}/s, {:.5} µs CPU, p50 {:.0} µs, p99 {:.0} µs, others {:.1} %",
                way.0, best.per_second, best.cpu, best.p50, best.p99, best.foreign
            );
            rounds.push(best);
        }
    }
    let of = |rounds: &[Round], pick: fn(&Round) -> f64| summary(rounds.iter().map(pick));
    let rows = ways.iter().zip(&rounds).map(|(way, rounds)| Row {
        name: way.0,
        per_second: of(rounds, |it| it.per_second),
        cpu: of(rounds, |it| it.cpu),
        p50: of(rounds, |it| it.p50),
        p99: of(rounds, |it| it.p99),
        foreign: of(rounds, |it| it.foreign),
    });
    Ok(rows.collect())
}

fn round(plan: &Plan, kind: Kind, (name, port, proxies): &Way<'_>, around: &Surroundings) -> Result<Round> {
    let address = SocketAddr::from(([127, 0, 0, 1], *port));
    // Processor time: of the proxies, of this process, of the whole machine.
    let probe = || {
        let proxies = proxies.map_or(Ok(0), Running::cpu_microseconds)?;
        Ok(vec![proxies, system::cpu_microseconds(std::process::id())?, system::busy_microseconds()?])
    };
    let window = Window { warm: WARM, time: plan.time, probe: &probe };
    let load = match kind {
        Kind::Closed => load::closed(address, CONNECTIONS, &window),
        Kind::Open => load::open(address, RATE, RATE_CONNECTIONS, &window),
        Kind::Streams => load::streams(address, HTTP2_CONNECTIONS, HTTP2_STREAMS, &window),
        Kind::Bytes => load::bytes(address, BYTES_CONNECTIONS, &window),
        Kind::Connections => load::connections(address, CONNECTING, &window),
        Kind::Handshakes(kind) => load::handshakes(address, CONNECTING, kind, &around.client, &window),
    };
    Ok(figures(&load.with_context(|| format!("the load on {name} (port {port}) failed"))?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds fit")]
fn figures(load: &Load) -> Round {
    let [proxies, own, busy] = [0, 1, 2].map(|index| load.probed.get(index).copied().unwrap_or_default());
    let cores = system::cores() as f64;
    Round {
        per_second: load.count as f64 / load.seconds,
        cpu: proxies as f64 / load.count as f64,
        p50: percentile(&load.latencies, 50),
        p99: percentile(&load.latencies, 99),
        foreign: 100.0 * busy.saturating_sub(proxies + own) as f64 / (load.seconds * 1e6 * cores),
    }
}
