//! Good traffic: requests at a steady rate on one HTTP/1.1 connection, each answer looked at.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What good traffic met.
#[derive(Debug)]
pub struct Figures {
    /// Requests answered with 200 and the whole body.
    pub good: usize,
    /// What went wrong.
    pub failures: Vec<String>,
    /// Times to the whole answer, sorted.
    pub times: Vec<Duration>,
}

impl Figures {
    /// A percentile of the times.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.times
            .get((self.times.len() * percent / 100).min(self.times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// Good traffic that runs until it is stopped.
#[derive(Debug)]
pub struct Good {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Figures>,
}

impl Good {
    /// Starts so many requests a second, each on time whatever became of the one before.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, thread: std::thread::spawn(move || run(address, rate, &stopped)) }
    }

    /// Ends it.
    ///
    /// # Errors
    /// If its thread panicked.
    pub fn stop(self) -> Result<Figures> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the load panicked")
    }
}

fn run(address: SocketAddr, rate: u32, stop: &AtomicBool) -> Figures {
    let mut figures = Figures { good: 0, failures: Vec::new(), times: Vec::new() };
    let mut connection = None;
    let began = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs(1) * number / rate;
        number += 1;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let asked = Instant::now();
        match request(address, &mut connection) {
            Ok(()) => {
                figures.good += 1;
                figures.times.push(asked.elapsed());
            }
            Err(error) => {
                connection = None;
                figures.failures.push(format!("{error:#}"));
            }
        }
    }
    figures.times.sort();
    figures
}

fn request(address: SocketAddr, connection: &mut Option<TcpStream>) -> Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(TcpStream::connect(address)?),
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).context("no answer")?;
        ensure!(count > 0, "closed");
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
            && bytes.len() >= at + 4 + 64
        {
            ensure!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes));
            ensure!(bytes.len() == at + 4 + 64, "more than the answer");
            return Ok(());
        }
    }
}
