//! The series of all workers: each worker finds its own without a lock, a scrape adds them up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::expose;
use crate::hash::WordHash;
use crate::labels::{HttpKey, RequestProtocol, TcpKey};
use crate::series::{HttpSeries, TcpSeries};

/// Series of one kind that one worker may have before the rest goes into overflow series.
pub const SERIES_MAX: usize = 1000;

/// What a scrape reads of one worker. The lock is taken by the worker only when it makes a new series.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) http: Mutex<Vec<Arc<HttpSeries>>>,
    pub(crate) tcp: Mutex<Vec<Arc<TcpSeries>>>,
}

/// All series of the process.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    shards: Arc<Mutex<Vec<Arc<Shard>>>>,
}

impl Metrics {
    /// The series of a new worker. Called on the worker's thread.
    pub fn worker(&self) -> Worker {
        let shard = Arc::new(Shard::default());
        self.shards.lock().push(Arc::clone(&shard));
        Worker { inner: Rc::new(Inner { shard, http: RefCell::default(), tcp: RefCell::default() }) }
    }

    /// Appends Istio's standard metrics in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        let shards: Vec<Arc<Shard>> = self.shards.lock().clone();
        expose::render(&shards, out);
    }

    /// Number of series, of all workers.
    pub fn series(&self) -> usize {
        self.shards.lock().iter().map(|shard| shard.http.lock().len() + shard.tcp.lock().len()).sum()
    }
}

/// One worker's series. Cheap to clone; not to be sent to another thread.
#[derive(Debug, Clone)]
pub struct Worker {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shard: Arc<Shard>,
    http: RefCell<HashMap<HttpKey, Arc<HttpSeries>, WordHash>>,
    tcp: RefCell<HashMap<TcpKey, Arc<TcpSeries>, WordHash>>,
}

impl Worker {
    /// The series of an HTTP request.
    pub fn http(&self, key: HttpKey) -> Arc<HttpSeries> {
        let mut known = self.inner.http.borrow_mut();
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let key = if known.len() < SERIES_MAX { key } else { key.overflow() };
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let series = Arc::new(HttpSeries::new(key.render(), key.protocol == RequestProtocol::Grpc));
        self.inner.shard.http.lock().push(Arc::clone(&series));
        known.insert(key, Arc::clone(&series));
        series
    }

    /// The series of a TCP connection.
    pub fn tcp(&self, key: TcpKey) -> Arc<TcpSeries> {
        let mut known = self.inner.tcp.borrow_mut();
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let key = if known.len() < SERIES_MAX { key } else { key.overflow() };
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let series = Arc::new(TcpSeries::new(key.render()));
        self.inner.shard.tcp.lock().push(Arc::clone(&series));
        known.insert(key, Arc::clone(&series));
        series
    }
}

#[cfg(test)]
mod tests;
