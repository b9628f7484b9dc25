//! A plain upstream of our own: answers every request, on as many connections as come.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::Result;

use crate::reference::{self, Request, Rest};

/// The upstream. `/bytes/N` is answered with N bytes, everything else with 64.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Backend {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> Result<Self> {
        Self::answering(|request| {
            let length =
                request.target.strip_prefix("/bytes/").and_then(|text| text.parse().ok()).unwrap_or(64);
            let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
            if request.method != "HEAD" {
                answer.resize(answer.len() + length, b'x');
            }
            answer
        })
    }

    /// Starts one that answers with the bytes that `answer` gives; the connection ends after an answer that is empty.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let backend = Self { address: listener.local_addr()?, requests: Arc::default() };
        let (answer, requests) = (Arc::new(answer), Arc::clone(&backend.requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                thread::spawn(move || serve(stream, &*answer, &requests));
            }
        });
        Ok(backend)
    }

    /// The requests since the last call, in the order of their ends.
    ///
    /// # Panics
    /// If a thread of the backend has panicked.
    pub fn take(&self) -> Vec<Request> {
        self.requests.lock().map(|mut requests| std::mem::take(&mut *requests)).unwrap_or_default()
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Vec<u8>, requests: &Mutex<Vec<Request>>) {
    // More than the last few are nobody's interest: a load test shall not fill the memory.
    const KEPT: usize = 10_000;
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        let (whole, rest) = reference::parse(&bytes);
        match rest {
            Rest::Malformed(_) => return,
            Rest::Partial if whole.is_empty() => continue,
            // Clients of these tests do not pipeline through the sidecar.
            Rest::Partial | Rest::Empty => bytes.clear(),
        }
        for request in whole {
            let answer = answer(&request);
            if let Ok(mut requests) = requests.lock()
                && requests.len() < KEPT
            {
                requests.push(request);
            }
            if answer.is_empty() || stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}
