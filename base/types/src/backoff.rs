//! Exponential back-off with full jitter; pure: the caller brings the randomness.

use std::time::Duration;

/// Delays that double from `base` up to `cap`, each scaled by a random factor in `[0, 1)`.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// `base` is the bound of the first delay, `cap` the bound of every later one.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// The next delay; `random` must be in `[0, 1)`. The upper bound doubles at each call.
    pub fn next_delay(&mut self, random: f64) -> Duration {
        let bound = self.bound();
        self.attempt = self.attempt.saturating_add(1);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// The bound of the next delay, without jitter.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.base.saturating_mul(1u32.checked_shl(self.attempt.min(31)).unwrap_or(u32::MAX)).min(self.cap)
    }

    /// Starts again from `base`, after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(25), Duration::from_millis(250));
        let bounds: Vec<_> = (0..6).map(|_| backoff.next_delay(1.0).as_millis()).collect();
        assert_eq!(bounds, [25, 50, 100, 200, 250, 250]);
        for _ in 0..100 {
            assert!(backoff.next_delay(0.5) <= Duration::from_millis(125));
        }
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(25));
    }
}
