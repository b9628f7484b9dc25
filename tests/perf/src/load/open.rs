//! HTTP/1.1 requests at a fixed rate, whatever the answers do.

use super::{Load, PATIENCE, REQUEST, Window, differences, micros, sorted};
use crate::message::response_length;
use crate::system::sleep_until;
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// `rate` requests a second, evenly spread over `connections` connections, each with a thread of its own. Latency counts from the
/// moment that a request was due, whether or not it could be sent then.
pub fn open(address: SocketAddr, rate: u32, connections: u32, window: &Window<'_>) -> Result<Load> {
    let start = Instant::now() + Duration::from_millis(100);
    let measured = start + window.warm;
    let end = measured + window.time;
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
    let before = (window.probe)()?;
    sleep_until(end);
    let after = (window.probe)()?;
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    ensure!(!latencies.is_empty(), "nothing came back");
    Ok(Load {
        count: latencies.len() as u64,
        seconds: window.time.as_secs_f64(),
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
