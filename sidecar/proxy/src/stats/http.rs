//! Counters of connection managers by their prefix. Each worker writes its own; a scrape adds them up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use sidecar_telemetry::histogram::Counter;

/// Counters of one prefix on one worker.
#[derive(Debug, Default)]
pub(crate) struct HttpCounters {
    connections: Counter,
    closed: Counter,
    requests: Counter,
    completed: Counter,
    responses: [Counter; 6],
    protocol_errors: Counter,
    events: [Counter; 7],
}

/// What seldom happens to a connection or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection was closed for having no request.
    CxIdleTimeout,
    /// A connection was closed for its age.
    CxMaxDuration,
    /// A connection was closed after its last allowed request.
    CxMaxRequests,
    /// A stream was given up because nothing moved.
    RqIdleTimeout,
    /// A stream was given up because its request did not arrive in time.
    RqTimeout,
    /// A stream was given up for its age.
    RqMaxDuration,
    /// A request was refused for want of memory.
    RqOverload,
}

/// The same as the worker's connections and requests hold it.
#[derive(Debug, Clone)]
pub(crate) struct HttpStats(Rc<Arc<HttpCounters>>);

/// The counters of all workers. The lock is taken only when a worker meets a prefix for the first time, and by a scrape.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Vec<(Arc<str>, Arc<HttpCounters>)>>);

/// The prefixes that one worker has met.
#[derive(Debug, Default)]
pub(crate) struct Known(RefCell<Vec<(Arc<str>, HttpStats)>>);

/// Names and values of one prefix.
pub(super) type Values = [(&'static str, u64); 16];

impl HttpStats {
    pub(crate) fn opened(&self) {
        self.0.connections.add(1);
    }

    pub(crate) fn closed(&self) {
        self.0.closed.add(1);
    }

    pub(crate) fn begun(&self) {
        self.0.requests.add(1);
    }

    pub(crate) fn ended(&self, code: u16) {
        self.0.completed.add(1);
        if let Some(counter) = self.0.responses.get(usize::from(code / 100)) {
            counter.add(1);
        }
    }

    pub(crate) fn event(&self, event: Event) {
        if let Some(counter) = self.0.events.get(event as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn protocol_error(&self) {
        self.0.protocol_errors.add(1);
    }
}

impl Known {
    /// The worker's counters of a prefix.
    pub(crate) fn get(&self, prefix: &Arc<str>, registry: &Registry) -> HttpStats {
        let mut known = self.0.borrow_mut();
        if let Some((_, stats)) = known.iter().find(|(name, _)| name == prefix) {
            return stats.clone();
        }
        let counters = Arc::new(HttpCounters::default());
        registry.0.lock().push((Arc::clone(prefix), Arc::clone(&counters)));
        let stats = HttpStats(Rc::new(counters));
        known.push((Arc::clone(prefix), stats.clone()));
        stats
    }
}

impl Registry {
    /// The sums of all workers, by prefix.
    pub(super) fn sums(&self) -> BTreeMap<Arc<str>, Values> {
        let mut sums: BTreeMap<Arc<str>, Values> = BTreeMap::new();
        for (prefix, counters) in self.0.lock().iter() {
            let values = counters.values();
            match sums.get_mut(prefix) {
                None => drop(sums.insert(Arc::clone(prefix), values)),
                Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, (_, value))| sum.1 += value),
            }
        }
        sums
    }
}

impl HttpCounters {
    fn values(&self) -> Values {
        let (opened, begun) = (self.connections.total(), self.requests.total());
        let of = |hundreds: usize| self.responses[hundreds].total();
        let event = |event: Event| self.events[event as usize].total();
        [
            ("downstream_cx_total", opened),
            ("downstream_cx_active", opened.saturating_sub(self.closed.total())),
            ("downstream_cx_protocol_error", self.protocol_errors.total()),
            ("downstream_rq_total", begun),
            ("downstream_rq_active", begun.saturating_sub(self.completed.total())),
            ("downstream_rq_2xx", of(2)),
            ("downstream_rq_3xx", of(3)),
            ("downstream_rq_4xx", of(4)),
            ("downstream_rq_5xx", of(5)),
            ("downstream_cx_idle_timeout", event(Event::CxIdleTimeout)),
            ("downstream_cx_max_duration_reached", event(Event::CxMaxDuration)),
            ("downstream_cx_max_requests_reached", event(Event::CxMaxRequests)),
            ("downstream_rq_idle_timeout", event(Event::RqIdleTimeout)),
            ("downstream_rq_timeout", event(Event::RqTimeout)),
            ("downstream_rq_max_duration_reached", event(Event::RqMaxDuration)),
            ("downstream_rq_overload_close", event(Event::RqOverload)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_apart_and_are_added_up() {
        let registry = Registry::default();
        let prefix: Arc<str> = "inbound_0.0.0.0_80".into();
        for _ in 0..2 {
            let known = Known::default();
            let stats = known.get(&prefix, &registry);
            stats.opened();
            stats.begun();
            stats.begun();
            known.get(&prefix, &registry).ended(503);
        }
        let sums = registry.sums();
        let value = |name: &str| sums[&prefix].iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!(sums.len(), 1);
        assert_eq!((value("downstream_rq_total"), value("downstream_rq_active")), (4, 2));
        assert_eq!((value("downstream_rq_5xx"), value("downstream_cx_active")), (2, 2));
    }
}
