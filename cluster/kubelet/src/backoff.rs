//! How long to wait before starting a crashing container, or pulling a failing image, once more.
//!
//! As Kubernetes' kubelet: the first restart is immediate, then 10 s, doubled to at most 300 s, forgotten after a run of 10 minutes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const DELAY_MIN: Duration = Duration::from_secs(10);
const DELAY_MAX: Duration = Duration::from_secs(300);
const FORGET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// The wait in force, and when it was last lengthened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    pub(crate) delay: Duration,
    pub(crate) updated: Timestamp,
}

/// Until when something that failed at `failed` must wait, with the delay that says so; `None` when it may go ahead.
pub(crate) fn blocked(
    backoff: Option<&Backoff>,
    failed: Timestamp,
    now: Timestamp,
) -> Option<(Timestamp, Duration)> {
    let backoff = backoff?;
    if failed.duration_since(backoff.updated) > FORGET_AFTER {
        return None;
    }
    let until = after(failed, backoff.delay);
    (now < until).then_some((until, backoff.delay))
}

/// The back-off after one more attempt at `now`, following a failure at `failed`.
pub(crate) fn advance(backoff: Option<&Backoff>, failed: Timestamp, now: Timestamp) -> Backoff {
    let delay = match backoff {
        Some(old) if failed.duration_since(old.updated) <= FORGET_AFTER => (old.delay * 2).min(DELAY_MAX),
        _ => DELAY_MIN,
    };
    Backoff { delay, updated: now }
}

/// `time` plus `wait`, held at the end of representable time.
pub(crate) fn after(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| time.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// The time from `now` until `then`, zero when it has passed.
pub(crate) fn until(then: Timestamp, now: Timestamp) -> Duration {
    then.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn first_restart_is_immediate_then_ten_seconds_doubling_to_five_minutes() {
        assert_eq!(blocked(None, at(100), at(100)), None);
        let mut backoff = advance(None, at(100), at(100));
        let mut now = 101;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            let (until, delay) = blocked(Some(&backoff), at(now), at(now)).unwrap();
            assert_eq!(delay, Duration::from_secs(expected));
            assert_eq!(until, at(now + i64::try_from(expected).unwrap()));
            assert_eq!(blocked(Some(&backoff), at(now), until), None);
            backoff = advance(Some(&backoff), at(now), until);
            now = until.as_second() + 1;
        }
    }

    #[test]
    fn a_long_run_forgets_the_past() {
        let backoff = Backoff { delay: Duration::from_secs(160), updated: at(0) };
        assert_eq!(blocked(Some(&backoff), at(601), at(601)), None);
        assert_eq!(advance(Some(&backoff), at(601), at(602)).delay, Duration::from_secs(10));
    }
}
