//! Outlier detection by rates, and its bounds.

use super::*;
use crate::Unavailable;

/// Host `n` answers `total` requests, `bad` of them with 503, all at `now_ms`. Returns who was ejected, and why.
fn run(
    balancer: &Balancer,
    counts: &[(u32, u32)],
    outcome: Outcome,
    now_ms: u64,
) -> Vec<(Address, EjectionCause)> {
    let mut rng = StdRng::seed_from_u64(4);
    let mut ejected = Vec::new();
    let mut tell = |index: usize, outcome, now_ms| {
        balancer.report(&balancer.hosts()[index].state, outcome, now_ms, &mut rng, |host, ejection| {
            ejected.push((host.endpoint.address.clone(), ejection.cause));
        });
    };
    for (index, (total, bad)) in counts.iter().enumerate() {
        for n in 0..*total {
            // The failures are spread, so that none are in a row.
            let fails = n * bad / total != (n + 1) * bad / total;
            tell(index, if fails { outcome } else { Outcome::Status(200) }, now_ms);
        }
    }
    // The interval has ended: the next report makes the comparison.
    tell(0, Outcome::Status(200), now_ms + 10_000);
    ejected
}

fn by_rate(change: impl FnOnce(&mut OutlierDetection)) -> OutlierDetection {
    let mut rules = OutlierDetection {
        consecutive_5xx: 0,
        enforcing_success_rate: 100,
        max_ejection_percent: 100,
        ..rules()
    };
    change(&mut rules);
    rules
}

fn of(rules: OutlierDetection, count: u8) -> Balancer {
    build(&cluster(least_request(), Some(rules)), &some(count), None)
}

#[test]
fn a_low_success_rate_ejects() {
    // Rates 100, 100, 100, 100, 0: mean 80, deviation 40. With a factor of 1.9 the bound is 4.
    let balancer = of(by_rate(|_| {}), 5);
    let counts = [(100, 0), (100, 0), (100, 0), (100, 0), (100, 100)];
    assert_eq!(
        run(&balancer, &counts, Outcome::Status(503), 1_000),
        [(address(5), EjectionCause::SuccessRate)]
    );
    let until_ms = 41_000;
    let cause = EjectionCause::SuccessRate;
    assert_eq!(balancer.hosts()[4].unavailable(12_000), Some(Unavailable::Ejected { until_ms, cause }));
    // Rates 100, 100, 100, 100, 10: mean 82, deviation 36: the bound is 13.6 and 10 is below; 20: mean 84, 32, bound 23.2.
    let counts = [(100, 0), (100, 0), (100, 0), (100, 0), (100, 80)];
    assert_eq!(run(&of(by_rate(|_| {}), 5), &counts, Outcome::Status(503), 1_000).len(), 1);
    let strict = of(by_rate(|rules| rules.success_rate_stdev_factor = 2100), 5);
    assert!(run(&strict, &counts, Outcome::Status(503), 1_000).is_empty(), "the bound is 16.8");
}

#[test]
fn rates_need_volume_and_hosts() {
    let counts = [(98, 0), (100, 0), (100, 0), (100, 0), (100, 100)];
    assert!(
        run(&of(by_rate(|_| {}), 5), &counts, Outcome::Status(503), 1_000).is_empty(),
        "four are too few"
    );
    let four = of(by_rate(|rules| rules.success_rate_minimum_hosts = 4), 5);
    // Rates of four: mean 75, deviation 43.3: a factor of 1.9 never gets above zero.
    assert!(run(&four, &counts, Outcome::Status(503), 1_000).is_empty());
    let off = of(by_rate(|rules| rules.enforcing_success_rate = 0), 5);
    let counts = [(100, 0), (100, 0), (100, 0), (100, 0), (100, 100)];
    assert!(run(&off, &counts, Outcome::Status(503), 1_000).is_empty());
}

#[test]
fn a_high_failure_percentage_ejects() {
    let rules = by_rate(|rules| {
        rules.enforcing_success_rate = 0;
        rules.enforcing_failure_percentage = 100;
    });
    let counts = [(50, 0), (50, 42), (50, 43), (49, 49), (50, 0)];
    // 84, 86 and too few requests.
    assert_eq!(
        run(&of(rules.clone(), 5), &counts[..5], Outcome::Status(500), 1_000),
        [],
        "four with volume are too few"
    );
    let rules = OutlierDetection { failure_percentage_minimum_hosts: 4, ..rules };
    assert_eq!(
        run(&of(rules, 5), &counts, Outcome::Status(500), 1_000),
        [(address(3), EjectionCause::FailurePercentage)]
    );
}

#[test]
fn connections_are_judged_apart_when_split() {
    let rules = by_rate(|rules| {
        rules.split_external_local_origin_errors = true;
        rules.enforcing_local_origin_success_rate = 100;
        rules.consecutive_local_origin_failure = 0;
    });
    let counts = [(100, 0), (100, 0), (100, 0), (100, 0), (100, 100)];
    assert_eq!(
        run(&of(rules, 5), &counts, Outcome::LocalFailure, 1_000),
        [(address(5), EjectionCause::SuccessRateLocalOrigin)]
    );
    let rules = OutlierDetection { split_external_local_origin_errors: true, ..super::rules() };
    let balancer = of(rules, 2);
    let mut rng = StdRng::seed_from_u64(1);
    let host = &balancer.hosts()[0].state;
    let causes: Vec<_> = (0..5)
        .filter_map(|_| report(&balancer, host, Outcome::LocalFailure, 0, &mut rng))
        .map(|ejection| ejection.cause)
        .collect();
    assert_eq!(causes, [EjectionCause::ConsecutiveLocalOriginFailure]);
}

#[test]
fn a_small_share_ejects_nobody_unless_one_always_may_be() {
    let fail = |always_eject_one, count| {
        let balancer = of(OutlierDetection { always_eject_one, ..rules() }, count);
        let mut rng = StdRng::seed_from_u64(1);
        let host = &balancer.hosts()[0].state;
        (0..5).any(|_| report(&balancer, host, Outcome::Status(500), 0, &mut rng).is_some())
    };
    assert!(!fail(false, 9) && fail(false, 10) && fail(true, 9), "ten percent of nine is nobody");
}

#[test]
fn ejections_are_capped_and_jittered() {
    let rules = OutlierDetection {
        max_ejection_time: Duration::from_secs(70),
        max_ejection_time_jitter: Duration::from_secs(5),
        ..rules()
    };
    let balancer = of(rules, 10);
    let mut rng = StdRng::seed_from_u64(1);
    let host = &balancer.hosts()[0].state;
    let (mut now, mut lengths) = (1_000, Vec::new());
    for _ in 0..4 {
        let ejection =
            (0..5).find_map(|_| report(&balancer, host, Outcome::Status(500), now, &mut rng)).unwrap();
        lengths.push(ejection.until_ms - now);
        now = ejection.until_ms;
    }
    for (length, base) in lengths.iter().zip([30_000, 60_000, 70_000, 70_000]) {
        assert!((base..=base + 5_000).contains(length), "{lengths:?}");
    }
    assert!(lengths.iter().any(|length| length % 1000 != 0), "some jitter: {lengths:?}");
    // Every quiet interval forgives one.
    now += 40_000;
    let ejection = (0..5).find_map(|_| report(&balancer, host, Outcome::Status(500), now, &mut rng)).unwrap();
    assert!((30_000..=35_000).contains(&(ejection.until_ms - now)), "four quiet intervals");
}
