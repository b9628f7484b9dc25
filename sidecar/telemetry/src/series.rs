//! One series of each family: what is counted under one set of labels.

use std::time::Duration;

use crate::histogram::{Counter, Histogram};

/// What is counted of HTTP requests.
#[derive(Debug)]
pub struct HttpSeries {
    pub(crate) labels: Box<str>,
    pub(crate) grpc: bool,
    pub(crate) requests: Counter,
    pub(crate) duration: Histogram,
    pub(crate) request_bytes: Histogram,
    pub(crate) response_bytes: Histogram,
    pub(crate) request_messages: Counter,
    pub(crate) response_messages: Counter,
}

/// What is counted of TCP connections.
#[derive(Debug)]
pub struct TcpSeries {
    pub(crate) labels: Box<str>,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

impl HttpSeries {
    pub(crate) fn new(labels: Box<str>, grpc: bool) -> Self {
        Self {
            labels,
            grpc,
            requests: Counter::default(),
            duration: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
            request_messages: Counter::default(),
            response_messages: Counter::default(),
        }
    }

    /// A request has ended.
    pub fn record(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.add(1);
        self.duration.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.record(request_bytes.saturating_mul(1000));
        self.response_bytes.record(response_bytes.saturating_mul(1000));
    }

    /// gRPC messages of the request that has ended.
    pub fn record_messages(&self, request: u64, response: u64) {
        self.request_messages.add(request);
        self.response_messages.add(response);
    }
}

impl TcpSeries {
    pub(crate) fn new(labels: Box<str>) -> Self {
        Self {
            labels,
            opened: Counter::default(),
            closed: Counter::default(),
            sent: Counter::default(),
            received: Counter::default(),
        }
    }

    /// A connection was opened.
    pub fn open(&self) {
        self.opened.add(1);
    }

    /// A connection was closed.
    pub fn close(&self) {
        self.closed.add(1);
    }

    /// Bytes went towards the client (`sent`) and came from it (`received`), as Istio counts them.
    pub fn bytes(&self, sent: u64, received: u64) {
        self.sent.add(sent);
        self.received.add(received);
    }
}
