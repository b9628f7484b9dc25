//! A client that calls one URL at a steady rate and says once a minute what came of it.

use crate::client::Client;
use base_runtime::CancellationToken;
use http::{HeaderMap, Uri};
use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval},
};

const TIMEOUT: Duration = Duration::from_secs(15);
/// Calls under way at once; a tick that finds none free is counted as skipped.
const UNDER_WAY_MAX: usize = 256;

#[derive(Default)]
struct Counts {
    good: AtomicU64,
    bad: AtomicU64,
}

pub async fn run(url: Uri, rate: u32, length: Duration, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (client, counts, slots) =
        (Client::new(), Arc::new(Counts::default()), Arc::new(Semaphore::new(UNDER_WAY_MAX)));
    let url: Arc<str> = url.to_string().into();
    let mut tick = interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (end, mut report) = (Instant::now() + length, Instant::now() + Duration::from_secs(60));
    let mut skipped = 0u64;
    while Instant::now() < end {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.cancelled() => break,
        }
        if Instant::now() >= report {
            tracing::info!(
                good = counts.good.load(Ordering::Relaxed),
                bad = counts.bad.load(Ordering::Relaxed),
                skipped,
                "Traffic"
            );
            report += Duration::from_secs(60);
        }
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            skipped += 1;
            continue;
        };
        let (client, counts, url) = (client.clone(), counts.clone(), url.clone());
        tokio::spawn(async move {
            let good = client
                .get(&url, &HeaderMap::new(), TIMEOUT)
                .await
                .is_ok_and(|answer| answer.status().is_success());
            if good { &counts.good } else { &counts.bad }.fetch_add(1, Ordering::Relaxed);
            drop(slot);
        });
    }
    tracing::info!(
        good = counts.good.load(Ordering::Relaxed),
        bad = counts.bad.load(Ordering::Relaxed),
        skipped,
        "Traffic ended"
    );
    Ok(())
}
