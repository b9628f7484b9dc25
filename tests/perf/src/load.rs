//! Generators of load. Each measures for a given time after a warm-up and asks a probe at both ends of it.

mod bytes;
mod closed;
mod connect;
mod open;
mod streams;

pub use bytes::bytes;
pub use closed::closed;
pub use connect::{Handshakes, connections, handshakes, idle};
pub use open::open;
pub use streams::streams;

use anyhow::{Result, ensure};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};

const REQUEST: &[u8] = b"GET /products/1 HTTP/1.1\r\nhost: app.default.svc.cluster.local\r\nuser-agent: perf\r\naccept: */*\r\n\r\n";
/// No answer for so long ends the measurement with an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// When to measure, and what to look at before and after.
pub struct Window<'a> {
    pub warm: Duration,
    pub time: Duration,
    pub probe: &'a dyn Fn() -> Result<Vec<u64>>,
}

/// What came of a load.
#[derive(Debug)]
pub struct Load {
    /// Requests, connections or bytes.
    pub count: u64,
    pub seconds: f64,
    /// Sorted, in microseconds; empty when the load has none.
    pub latencies: Vec<f64>,
    /// What `probe` said of the time that was measured: the difference between its end and its start.
    pub probed: Vec<u64>,
}

/// What the clients of one load share.
#[derive(Default)]
struct Counts {
    measuring: Cell<bool>,
    ended: Cell<bool>,
    count: Cell<u64>,
    latencies: RefCell<Vec<f64>>,
}

impl Counts {
    /// A request that was sent at `sent` has its answer.
    fn answered(&self, sent: Instant) {
        if self.measuring.get() {
            self.count.set(self.count.get() + 1);
            self.latencies.borrow_mut().push(micros(sent.elapsed()));
        }
    }

    fn add(&self, count: u64) {
        if self.measuring.get() {
            self.count.set(self.count.get() + count);
        }
    }
}

/// Runs `clients` of the same kind until the time is over.
fn drive<F, C>(clients: usize, window: &Window<'_>, client: C) -> Result<Load>
where
    F: Future<Output = Result<()>> + 'static,
    C: Fn(Rc<Counts>) -> F,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counts = Rc::new(Counts::default());
    LocalSet::new().block_on(&runtime, async {
        let mut running = JoinSet::new();
        for _ in 0..clients {
            running.spawn_local(client(Rc::clone(&counts)));
        }
        tokio::time::sleep(window.warm).await;
        let (started, before) = (Instant::now(), (window.probe)()?);
        counts.measuring.set(true);
        tokio::time::sleep(window.time).await;
        counts.measuring.set(false);
        let (seconds, after) = (started.elapsed().as_secs_f64(), (window.probe)()?);
        counts.ended.set(true);
        while let Some(client) = tokio::time::timeout(PATIENCE, running.join_next()).await? {
            client??;
        }
        ensure!(counts.count.get() > 0, "nothing came back");
        let latencies = sorted(counts.latencies.take());
        Ok(Load { count: counts.count.get(), seconds, latencies, probed: differences(&before, &after) })
    })
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
