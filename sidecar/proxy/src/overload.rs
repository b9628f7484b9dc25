//! What is given up, step by step, when memory runs out: Envoy's overload manager with its usual actions, on by default.
//!
//! Pure: somebody else measures. A step ends only some way below the point at which it began, so that it does not flutter.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering::Relaxed};
use std::time::Duration;

/// Longest time that a connection may be idle once timeouts are reduced.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(5);
/// The same once connections are no longer kept: one that is in use is told by its next response, not cut before its next request.
const IDLE_MIN: Duration = Duration::from_millis(500);
/// The same of a stream, once connections are no longer kept.
const STREAM_IDLE_MIN: Duration = Duration::from_secs(1);
/// How far below its beginning a step ends, in thousandths of the limit.
const HYSTERESIS: u16 = 50;

/// How far things have come. Each level includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Enough memory.
    #[default]
    Calm,
    /// Idle connections end soon, and request bodies are not kept for another attempt.
    ReduceTimeouts,
    /// HTTP/1.1 connections end after a response, idle ones and those to upstreams at once.
    DisableKeepalive,
    /// Requests are answered 503, and connections are not accepted.
    StopAccepting,
}

impl Level {
    const ALL: [Self; 4] = [Self::Calm, Self::ReduceTimeouts, Self::DisableKeepalive, Self::StopAccepting];

    /// Thousandths of the limit from which on it holds.
    pub const fn begins(self) -> u16 {
        match self {
            Self::Calm => 0,
            Self::ReduceTimeouts => 850,
            Self::DisableKeepalive => 920,
            Self::StopAccepting => 950,
        }
    }

    /// The level at a pressure, coming from this one.
    #[must_use]
    pub fn next(self, pressure: u16) -> Self {
        let holds = |level: &Self| {
            let slack = if *level <= self { HYSTERESIS } else { 0 };
            *level == Self::Calm || pressure >= level.begins() - slack
        };
        Self::ALL.into_iter().rev().find(holds).unwrap_or_default()
    }

    /// How long a connection may be idle at most.
    pub(crate) fn idle_max(self) -> Option<Duration> {
        match self {
            Self::Calm => None,
            Self::ReduceTimeouts => Some(IDLE_MAX),
            Self::DisableKeepalive | Self::StopAccepting => Some(IDLE_MIN),
        }
    }

    /// How long a stream that begins now may be still at most: what is held for it is missed elsewhere.
    pub(crate) fn stream_idle_max(self) -> Option<Duration> {
        match self {
            Self::Calm => None,
            Self::ReduceTimeouts => Some(IDLE_MAX),
            Self::DisableKeepalive | Self::StopAccepting => Some(STREAM_IDLE_MIN),
        }
    }
}

/// The level in force and the pressure behind it, for workers and for people.
#[derive(Debug, Default)]
pub struct Overload {
    level: AtomicU8,
    /// Thousandths of the limit.
    pressure: AtomicU16,
}

/// Envoy's actions, each with the level from which on it is active.
const ACTIONS: [(&str, Level); 4] = [
    ("envoy.overload_actions.reduce_timeouts.active", Level::ReduceTimeouts),
    ("envoy.overload_actions.disable_http_keepalive.active", Level::DisableKeepalive),
    ("envoy.overload_actions.stop_accepting_requests.active", Level::StopAccepting),
    ("envoy.overload_actions.stop_accepting_connections.active", Level::StopAccepting),
];

impl Overload {
    /// Takes over a measurement, in thousandths of the limit; the level, if it is another than before.
    pub(crate) fn measured(&self, pressure: u16) -> Option<Level> {
        self.pressure.store(pressure, Relaxed);
        let before = self.level();
        let level = before.next(pressure);
        self.level.store(level as u8, Relaxed);
        (level != before).then_some(level)
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        let level = usize::from(self.level.load(Relaxed));
        Level::ALL.get(level).copied().unwrap_or_default()
    }

    /// Names and values as Envoy's `/stats` has them.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let level = self.level();
        let percent = u64::from(self.pressure.load(Relaxed)) / 10;
        let actions = ACTIONS.into_iter().map(move |(name, from)| (name, u64::from(level >= from)));
        std::iter::once(("envoy.resource_monitors.cgroup_memory.pressure", percent)).chain(actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_in_order_and_end_later() {
        use Level::{Calm, DisableKeepalive, ReduceTimeouts, StopAccepting};
        let mut level = Calm;
        let mut seen = Vec::new();
        for pressure in
            [0, 849, 850, 919, 920, 949, 950, 1200, 901, 900, 899, 871, 870, 869, 801, 800, 799, 850]
        {
            level = level.next(pressure);
            seen.push((pressure, level));
        }
        assert_eq!(
            seen,
            [
                (0, Calm),
                (849, Calm),
                (850, ReduceTimeouts),
                (919, ReduceTimeouts),
                (920, DisableKeepalive),
                (949, DisableKeepalive),
                (950, StopAccepting),
                (1200, StopAccepting),
                (901, StopAccepting),
                (900, StopAccepting),
                (899, DisableKeepalive),
                (871, DisableKeepalive),
                (870, DisableKeepalive),
                (869, ReduceTimeouts),
                (801, ReduceTimeouts),
                (800, ReduceTimeouts),
                (799, Calm),
                (850, ReduceTimeouts),
            ]
        );
        assert_eq!(Calm.next(1000), StopAccepting, "all steps at once");
        assert_eq!(StopAccepting.next(100), Calm);
    }
}
