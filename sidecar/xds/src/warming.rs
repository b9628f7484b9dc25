//! When a change is complete enough to be put into force.
//!
//! A new cluster comes before its endpoints, a new listener before its routes. Until they are there, the
//! configuration before stays in force, but not for long: a name that nobody answers must not hold back everything else.

use sidecar_model::ResourceType;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a change waits for what it refers to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A name of a type.
pub(crate) type Name = (ResourceType, Arc<str>);

/// Remembers since when something is awaited, and what was waited for in vain.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    since: Option<Instant>,
    given_up: BTreeSet<Name>,
}

/// What to do with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Put it into force.
    Now,
    /// Ask again when more has come, at the latest then.
    Until(Instant),
}

// === impl Warming ===

impl Warming {
    /// Judges a change that still waits for the names in `awaited`.
    pub(crate) fn decide(&mut self, mut awaited: BTreeSet<Name>, now: Instant) -> Decision {
        self.given_up.retain(|name| awaited.contains(name));
        awaited.retain(|name| !self.given_up.contains(name));
        if awaited.is_empty() {
            self.since = None;
            return Decision::Now;
        }
        let until = *self.since.get_or_insert(now) + PATIENCE;
        if now < until {
            return Decision::Until(until);
        }
        self.since = None;
        self.given_up.append(&mut awaited);
        Decision::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<Name> {
        all.iter().map(|name| (ResourceType::Endpoints, (*name).into())).collect()
    }

    #[test]
    fn waits_once_and_no_longer_than_its_patience() {
        let start = Instant::now();
        let mut warming = Warming::default();
        assert_eq!(warming.decide(names(&["a", "b"]), start), Decision::Until(start + PATIENCE));
        let later = start + PATIENCE / 2;
        assert_eq!(
            warming.decide(names(&["b"]), later),
            Decision::Until(start + PATIENCE),
            "no new patience"
        );
        assert_eq!(warming.decide(names(&["b"]), start + PATIENCE), Decision::Now);
        assert_eq!(warming.decide(names(&["b"]), start + PATIENCE), Decision::Now, "`b` is given up");
        let again = start + PATIENCE * 2;
        assert_eq!(warming.decide(names(&["b", "c"]), again), Decision::Until(again + PATIENCE));
        assert_eq!(warming.decide(names(&[]), again), Decision::Now);
        assert_eq!(
            warming.decide(names(&["b"]), again),
            Decision::Until(again + PATIENCE),
            "`b` had been there"
        );
    }
}
