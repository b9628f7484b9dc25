//! An upstream that keeps every byte it gets: one request a connection, answered as soon as it is whole.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::reference::{self, Rest};

/// The upstream and what it got.
#[derive(Debug)]
pub struct Capture {
    /// Where it listens.
    pub address: SocketAddr,
    streams: Receiver<Vec<u8>>,
    accepted: Arc<AtomicUsize>,
}

impl Capture {
    /// Starts it. Every response ends its connection, so that whatever follows a request on the same connection is an
    /// error of the one that forwarded it.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (sender, streams) = channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let sender = sender.clone();
                thread::spawn(move || serve(stream, &sender));
            }
        });
        Ok(Self { address, streams, accepted })
    }

    /// How many connections it has got.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The streams of connections that have ended since.
    pub fn take(&self) -> Vec<Vec<u8>> {
        self.streams.try_iter().collect()
    }

    /// The next stream of a connection that ends, within `deadline`.
    pub fn next(&self, deadline: Duration) -> Option<Vec<u8>> {
        self.streams.recv_timeout(deadline).ok()
    }
}

fn serve(mut stream: TcpStream, sender: &Sender<Vec<u8>>) {
    let mut bytes = Vec::new();
    let mut answered = false;
    let mut buffer = [0; 16 * 1024];
    // A sidecar that neither ends its connection nor completes its request within this is seen as the partial stream it left.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
        if !answered && !matches!(reference::parse(&bytes), (requests, Rest::Partial) if requests.is_empty())
        {
            answered = true;
            // Who does not read the answer is seen by what it sent.
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\nx-capture: yes\r\n\r\n",
            );
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
    // The test may have ended.
    let _ = sender.send(bytes);
}
