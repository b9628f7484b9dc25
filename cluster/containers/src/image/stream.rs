//! Lets blocking code read an asynchronous stream, a bounded number of chunks ahead.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

const CHUNK_BYTES: usize = 128 << 10;
const CHUNKS_AHEAD: usize = 8;

/// A reader for a blocking thread, and the future that feeds it.
pub(crate) fn blocking(
    mut stream: impl AsyncRead + Send + Unpin + 'static,
) -> (impl Read + Send + 'static, impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS_AHEAD);
    let pump = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let item = match stream.read_buf(&mut chunk).await {
                Ok(_) => Ok(chunk.into()),
                Err(error) => Err(error),
            };
            let last = !matches!(&item, Ok(bytes) if !Bytes::is_empty(bytes));
            if sender.send(item).await.is_err() || last {
                return;
            }
        }
    };
    (ChannelReader { receiver, current: Bytes::new(), ended: false }, pump)
}

struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.ended = chunk.is_empty();
                    self.current = chunk;
                }
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.current.len().min(buf.len());
        self.current.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}
