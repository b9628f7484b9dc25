//! Generators of load: a closed loop for capacity, an open loop for latency.

use crate::message::response_length;
use anyhow::{Context, Result, ensure};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

const REQUEST: &[u8] = b"GET /products/1 HTTP/1.1\r\nhost: app.default.svc.cluster.local\r\nuser-agent: perf\r\naccept: */*\r\n\r\n";
/// No answer for so long ends the measurement with an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of a load.
#[derive(Debug)]
pub struct Load {
    pub requests: u64,
    pub seconds: f64,
    /// Sorted, in microseconds.
    pub latencies: Vec<f64>,
    /// What `probe` said of the time that was measured: the difference between its end and its start.
    pub probed: Vec<u64>,
}

#[derive(Default)]
struct Counts {
    measuring: Cell<bool>,
    ended: Cell<bool>,
    latencies: RefCell<Vec<f64>>,
}

/// As many requests as come back on `connections` connections; `warm` goes by before counting starts.
pub fn closed(
    address: SocketAddr,
    connections: usize,
    warm: Duration,
    time: Duration,
    probe: &dyn Fn() -> Result<Vec<u64>>,
) -> Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counts = Rc::new(Counts::default());
    LocalSet::new().block_on(&runtime, async {
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            clients.spawn_local(client(address, Rc::clone(&counts)));
        }
        tokio::time::sleep(warm).await;
        let (started, before) = (Instant::now(), probe()?);
        counts.measuring.set(true);
        tokio::time::sleep(time).await;
        counts.measuring.set(false);
        let (seconds, after) = (started.elapsed().as_secs_f64(), probe()?);
        counts.ended.set(true);
        while let Some(client) = tokio::time::timeout(PATIENCE, clients.join_next()).await? {
            client??;
        }
        let latencies = counts.latencies.take();
        ensure!(!latencies.is_empty(), "nothing came back");
        Ok(Load {
            requests: latencies.len() as u64,
            seconds,
            latencies: sorted(latencies),
            probed: differences(&before, &after),
        })
    })
}

async fn client(address: SocketAddr, counts: Rc<Counts>) -> Result<()> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(8192);
    while !counts.ended.get() {
        let sent = Instant::now();
        stream.write_all(REQUEST).await?;
        input.clear();
        let mut length = None;
        while length.is_none_or(|length| input.len() < length) {
            ensure!(stream.read_buf(&mut input).await? > 0, "the connection was closed");
            if length.is_none() {
                length = response_length(&input)?;
            }
        }
        if counts.measuring.get() {
            counts.latencies.borrow_mut().push(micros(sent.elapsed()));
        }
    }
    Ok(())
}

/// `rate` requests a second, evenly spread over `connections` connections, each with a thread of its own. Latency counts from the
/// moment that a request was due, whether or not it could be sent then.
pub fn open(
    address: SocketAddr,
    rate: u32,
    connections: u32,
    warm: Duration,
    time: Duration,
    probe: &dyn Fn() -> Result<Vec<u64>>,
) -> Result<Load> {
    let start = Instant::now() + Duration::from_millis(100);
    let measured = start + warm;
    let end = measured + time;
    let threads: Vec<_> = (0..connections)
        .map(|index| {
            let first = start + Duration::from_secs(1) * index / rate;
            let every = Duration::from_secs(1) * connections / rate;
            std::thread::Builder::new()
                .name("client".into())
                .stack_size(256 * 1024)
                .spawn(move || scheduled(address, first, every, measured, end))
        })
        .collect::<Result<_, _>>()?;
    sleep_until(measured);
    let before = probe()?;
    sleep_until(end);
    let after = probe()?;
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    ensure!(!latencies.is_empty(), "nothing came back");
    Ok(Load {
        requests: latencies.len() as u64,
        seconds: time.as_secs_f64(),
        latencies: sorted(latencies),
        probed: differences(&before, &after),
    })
}

fn scheduled(
    address: SocketAddr,
    first: Instant,
    every: Duration,
    measured: Instant,
    end: Instant,
) -> Result<Vec<f64>> {
    // Else the kernel rounds each wake-up by 50 µs.
    nix::sys::prctl::set_timerslack(1)?;
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut latencies = Vec::new();
    let mut input = Vec::with_capacity(8192);
    let mut chunk = [0; 4096];
    let mut due = first;
    while due < end {
        sleep_until(due);
        stream.write_all(REQUEST)?;
        input.clear();
        let mut length = None;
        while length.is_none_or(|length| input.len() < length) {
            let count = stream.read(&mut chunk)?;
            ensure!(count > 0, "the connection was closed");
            input.extend_from_slice(&chunk[..count]);
            if length.is_none() {
                length = response_length(&input)?;
            }
        }
        if due >= measured {
            latencies.push(micros(due.elapsed()));
        }
        due += every;
    }
    Ok(latencies)
}

#[expect(clippy::disallowed_methods, reason = "a schedule is time itself")]
fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn differences(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect()
}
