//! Start and memory of each peer, alone: until the first answer, for connections that rest, for many clusters.

use crate::entry::Entry;
use crate::load;
use crate::peers::{MANY, Peer, Role, Surroundings};
use crate::summary::{Summary, summary};
use crate::system::{Memory, sleep_until};
use anyhow::Result;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections that rest. Few enough for a machine whose ports others use too.
pub const IDLE: usize = 2_000;
/// A program that gives memory back some time after its start has done so by then.
const SETTLED: Duration = Duration::from_secs(5);

/// What was seen of one peer. Memory in KiB.
#[derive(Debug)]
pub struct Footprint {
    pub name: &'static str,
    /// Milliseconds until the first answer.
    pub first_answer: Summary,
    pub first: Memory,
    /// Some seconds later.
    pub settled: Memory,
    /// KiB for each plain connection that rests.
    pub idle: Option<f64>,
    /// KiB for each mutual TLS connection that rests.
    pub idle_tls: Option<f64>,
    /// KiB for 1,000 clusters with a route each.
    pub clusters: Option<f64>,
}

/// Looks at each peer in turn; `starts` fresh starts of each.
pub fn measure(peers: &[Peer], around: &Surroundings, starts: usize) -> Result<Vec<Footprint>> {
    let mut times: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 1..starts {
        for (peer, times) in peers.iter().zip(&mut times) {
            times.push(peer.start_timed(Role::Outbound, around)?.1.as_secs_f64() * 1e3);
        }
    }
    peers.iter().zip(times).map(|(peer, times)| one(peer, around, times)).collect()
}

fn one(peer: &Peer, around: &Surroundings, mut times: Vec<f64>) -> Result<Footprint> {
    let (running, took) = peer.start_timed(Role::Outbound, around)?;
    times.push(took.as_secs_f64() * 1e3);
    let memory = |running: &crate::peers::Running| anyhow::Ok(running.memory()?.into_iter().sum::<Memory>());
    let first = memory(&running)?;
    sleep_until(Instant::now() + SETTLED);
    let settled = memory(&running)?;
    let idle = each(&running, Entry::Hop, None)?;
    drop(running);
    let idle_tls = if peer.carries(Entry::MeshBytes) {
        let (running, _) = peer.start_timed(Role::Inbound, around)?;
        Some(each(&running, Entry::Inbound, Some(around))?)
    } else {
        None
    };
    let clusters = if peer.scales() {
        let (running, _) = peer.start_timed(Role::Large, around)?;
        sleep_until(Instant::now() + SETTLED);
        let large = memory(&running)?;
        Some(difference(large.anonymous, settled.anonymous) * 1000.0 / MANY as f64)
    } else {
        None
    };
    let seen = Footprint {
        name: peer.name,
        first_answer: summary(times),
        first,
        settled,
        idle: Some(idle),
        idle_tls,
        clusters,
    };
    eprintln!("{seen:?}");
    Ok(seen)
}

/// KiB more for each connection that rests.
fn each(running: &crate::peers::Running, entry: Entry, tls: Option<&Surroundings>) -> Result<f64> {
    let address = SocketAddr::from(([127, 0, 0, 1], running.port(entry)));
    let identity = tls.map(|around| &around.client);
    let anonymous = || anyhow::Ok(running.memory()?.iter().map(|memory| memory.anonymous).sum::<u64>());
    // What the first connections need once is not theirs.
    load::idle(address, 16, identity, || Ok(()))?;
    let before = anonymous()?;
    let after = load::idle(address, IDLE, identity, anonymous)?;
    Ok(difference(after, before) / IDLE as f64)
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a process fit")]
fn difference(after: u64, before: u64) -> f64 {
    after as f64 - before as f64
}
