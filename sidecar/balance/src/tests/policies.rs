//! Policies against their published algorithms.

use super::*;
use crate::maglev::Maglev;
use crate::murmur::murmur2;
use crate::policy::Named;
use crate::ring::Ring;
use sidecar_model::cluster::{PeakEwma, SlowStart};

fn weighted(weights: &[u32]) -> Endpoints {
    let endpoints = (1u8..).zip(weights).map(|(n, weight)| endpoint(n, *weight, Health::Healthy)).collect();
    all(vec![at(0, None, endpoints)])
}

fn named(weights: &[f64]) -> Vec<Named> {
    let one =
        |(index, weight): (u32, &f64)| Named { index, name: format!("10.0.0.{index}:80"), weight: *weight };
    (0u32..).zip(weights).map(one).collect()
}

#[test]
fn weighted_turns_are_exact_and_spread_out() {
    let round_robin = cluster(LbPolicy::RoundRobin { slow_start: None }, None);
    for weights in [vec![1, 2, 3], vec![5, 1, 1], vec![100, 1], vec![7, 7, 1, 3]] {
        let balancer = build(&round_robin, &weighted(&weights), None);
        let total: u32 = weights.iter().sum();
        let picks = 1000 * total as usize;
        let counts = shares(&balancer, picks, |_| None);
        for (n, weight) in (1u8..).zip(&weights) {
            let got = counts.get(&address(n)).copied().unwrap_or(0);
            let want = 1000 * *weight as usize;
            assert!(got.abs_diff(want) <= want / 100 + 20, "{weights:?}: {n} got {got} of {picks}");
        }
    }
    // Five to one: never more than five of the heavy one in a row, as an earliest-deadline schedule has it.
    let balancer = build(&round_robin, &weighted(&[5, 1]), None);
    let mut rng = StdRng::seed_from_u64(1);
    let mut run = 0;
    for _ in 0..600 {
        let heavy = balancer.pick(&PickContext::default(), &mut rng).unwrap().endpoint.weight == 5;
        run = if heavy { run + 1 } else { 0 };
        assert!(run <= 6, "{run} in a row");
    }
}

#[test]
fn turns_skip_the_sick_evenly() {
    let endpoints = all(vec![at(
        0,
        None,
        (1..=4).map(|n| endpoint(n, 1, if n == 2 { Health::Draining } else { Health::Healthy })).collect(),
    )]);
    let balancer = build(&cluster(LbPolicy::RoundRobin { slow_start: None }, None), &endpoints, None);
    let counts = shares(&balancer, 300, |_| None);
    assert_eq!([1, 3, 4].map(|n| counts[&address(n)]), [100, 100, 100]);
    assert!(!counts.contains_key(&address(2)));
}

#[test]
fn busy_endpoints_lose_weight_by_the_bias() {
    let share_of_busy = |bias: f64| {
        let lb = LbPolicy::LeastRequest { choices: 2, slow_start: None, active_request_bias: bias };
        let balancer = build(&cluster(lb, None), &weighted(&[2, 1]), None);
        (0..3).for_each(|_| balancer.hosts()[0].state.begin());
        shares(&balancer, 10_000, |_| None)[&address(1)]
    };
    // Weight 2 with three requests under way against weight 1 with none: 2 / 4^bias to 1.
    for (bias, want) in [(0.0, 6_667), (1.0, 3_333), (2.0, 1_111)] {
        let got = share_of_busy(bias);
        assert!(got.abs_diff(want) < 200, "bias {bias}: {got}");
    }
}

#[test]
fn new_endpoints_start_slowly() {
    let slow_start = Some(SlowStart { window: Duration::from_secs(10), aggression: 1.0, weight_min: 0.1 });
    for lb in [
        LbPolicy::RoundRobin { slow_start },
        LbPolicy::LeastRequest { choices: 2, slow_start, active_request_bias: 1.0 },
    ] {
        let cluster = cluster(lb, None);
        let old = Balancer::new(&cluster, &some(1), None, 0);
        let both = Balancer::new(&cluster, &some(2), Some(&old), 100_000);
        let mut rng = StdRng::seed_from_u64(5);
        let mut share = |now_ms| {
            let context = PickContext { now_ms, ..PickContext::default() };
            (0..12_000)
                .filter(|_| both.pick(&context, &mut rng).unwrap().endpoint.address == address(2))
                .count()
        };
        // A share of s against 1: s / (1 + s) of the requests.
        for (now, want) in [(100_500, 1_091), (105_000, 4_000), (109_000, 5_684), (110_000, 6_000)] {
            let got = share(now);
            assert!(got.abs_diff(want) < 300, "{:?} at {now}: {got}, not {want}", cluster.lb);
        }
    }
}

#[test]
fn aggression_bends_the_curve() {
    let slow_start = Some(SlowStart { window: Duration::from_secs(10), aggression: 2.0, weight_min: 0.0 });
    let cluster = cluster(LbPolicy::RoundRobin { slow_start }, None);
    let old = Balancer::new(&cluster, &some(1), None, 0);
    let both = Balancer::new(&cluster, &some(2), Some(&old), 100_000);
    let mut rng = StdRng::seed_from_u64(5);
    // A quarter of the window: (1/4)^(1/2) is a half, to 1.
    let context = PickContext { now_ms: 102_500, ..PickContext::default() };
    let got =
        (0..9_000).filter(|_| both.pick(&context, &mut rng).unwrap().endpoint.address == address(2)).count();
    assert!(got.abs_diff(3_000) < 250, "{got}");
}

#[test]
fn slow_endpoints_are_avoided_and_forgiven() {
    let rules = PeakEwma { decay: Duration::from_secs(10), default_rtt: Duration::from_millis(10) };
    let balancer = build(&cluster(LbPolicy::PeakEwma(rules), None), &some(2), None);
    assert!(balancer.wants_latency());
    let mut rng = StdRng::seed_from_u64(1);
    let (slow, fast) = (&balancer.hosts()[0].state, &balancer.hosts()[1].state);
    let mut to_slow = |now_ms| {
        let context = PickContext { now_ms, ..PickContext::default() };
        (0..1000)
            .filter(|_| balancer.pick(&context, &mut rng).unwrap().endpoint.address == address(1))
            .count()
    };
    balancer.observe(fast, Some(Duration::from_millis(5)), 0);
    balancer.observe(slow, Some(Duration::from_millis(5)), 0);
    balancer.observe(slow, Some(Duration::from_millis(100)), 1);
    assert_eq!(to_slow(1), 0, "one peak is enough");
    balancer.observe(slow, Some(Duration::from_millis(1)), 2);
    assert_eq!(to_slow(2), 0, "and does not go away at once");
    (0..40).for_each(|_| fast.begin());
    assert_eq!(to_slow(2), 1000, "unless the other has much to do");
    (0..40).for_each(|_| fast.end());
    balancer.observe(fast, Some(Duration::from_millis(5)), 60_000);
    assert_eq!(to_slow(60_000), 1000, "in time it is forgotten");
    balancer.observe(slow, None, 60_001);
    assert_eq!(to_slow(60_001), 0, "fast failures do not attract");
}

#[test]
fn murmur_has_published_values() {
    // `std::hash<std::string>` of libstdc++ on 64 bits.
    assert_eq!(murmur2(b""), 6_142_509_188_972_423_790);
    assert_eq!(murmur2(b"a"), 4_993_892_634_952_068_459);
}

#[test]
fn a_ring_has_envoys_size_and_bounds() {
    let size = |weights: &[f64], min, max| Ring::new(&named(weights), min, max, HashFunction::XxHash).len();
    assert_eq!(size(&[1.0, 1.0, 1.0], 1024, 8 << 20), 1026, "whole places for each");
    assert_eq!(size(&[1.0, 1.0], 1, 1), 1, "no more than the bound");
    assert_eq!(size(&[1.0, 3.0], 4, 100), 4);
    assert_eq!(size(&[], 1024, 4096), 0);
    let ring = |function| Ring::new(&named(&[1.0, 1.0, 1.0]), 1024, 4096, function);
    let (xx, murmur) = (ring(HashFunction::XxHash), ring(HashFunction::MurmurHash2));
    let differ = (0..1000u64).filter(|n| {
        let hash = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        xx.get(hash, 0) != murmur.get(hash, 0)
    });
    assert!(differ.count() > 500, "the hash function matters");
}

#[test]
fn a_maglev_table_is_shared_by_weight() {
    let table = Maglev::new(&named(&[3.0, 1.0]), 65_537);
    let first = (0..65_537u64).filter(|position| table.get(*position, 0) == Some(0)).count();
    assert!(first.abs_diff(49_153) < 10, "{first}");
    let even = Maglev::new(&named(&[1.0; 5]), 65_537);
    for host in 0..5 {
        let count = (0..65_537u64).filter(|position| even.get(*position, 0) == Some(host)).count();
        assert!(count.abs_diff(13_107) <= 1, "Maglev fills evenly: {count}");
    }
}

#[test]
fn a_hash_finds_another_endpoint_when_its_own_is_out() {
    for lb in [
        LbPolicy::RingHash { ring_size_min: 1024, ring_size_max: 8 << 20, hash: HashFunction::MurmurHash2 },
        LbPolicy::Maglev { table_size: 65537 },
    ] {
        let cluster = cluster(lb, None);
        let well = build(&cluster, &some(5), None);
        let mut endpoints = some(5);
        endpoints.localities[0].endpoints[2] = endpoint(3, 1, Health::Unhealthy);
        let ill = build(&cluster, &endpoints, None);
        let mut rng = StdRng::seed_from_u64(3);
        let mut heirs = HashMap::new();
        for key in 0..10_000u64 {
            let hash = Some(key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let context = PickContext { hash, ..PickContext::default() };
            let mut find =
                |balancer: &Balancer| balancer.pick(&context, &mut rng).unwrap().endpoint.address.clone();
            let (before, after) = (find(&well), find(&ill));
            if before == address(3) {
                assert_eq!(after, find(&ill), "one key, one endpoint");
                *heirs.entry(after).or_insert(0) += 1;
            } else {
                assert_eq!(before, after, "nobody else moves");
            }
        }
        assert_eq!(heirs.len(), 4, "all others take a part: {heirs:?}");
    }
}

#[test]
fn degraded_endpoints_help_when_too_few_are_healthy() {
    let with = |healths: &[Health]| {
        let endpoints = (1u8..).zip(healths).map(|(n, health)| endpoint(n, 1, *health)).collect();
        let balancer = build(&cluster(LbPolicy::Random, None), &all(vec![at(0, None, endpoints)]), None);
        shares(&balancer, 10_000, |_| None)
    };
    let enough = with(&[Health::Healthy, Health::Healthy, Health::Healthy, Health::Degraded]);
    assert!(!enough.contains_key(&address(4)), "three of four with factor 1.4 are enough");
    let few = with(&[Health::Healthy, Health::Unhealthy, Health::Unhealthy, Health::Degraded]);
    // A quarter each, times 1.4: the same share for both.
    assert!(few[&address(1)].abs_diff(5_000) < 200, "{few:?}");
    let none = with(&[Health::Unhealthy, Health::Unhealthy, Health::Degraded, Health::Unhealthy]);
    assert_eq!(none[&address(3)], 10_000);
}

#[test]
fn panic_uses_everybody_and_zero_turns_it_off() {
    let endpoints = all(vec![at(
        0,
        None,
        (1..=4).map(|n| endpoint(n, 1, if n == 1 { Health::Healthy } else { Health::Unhealthy })).collect(),
    )]);
    let with = |percent| {
        let mut cluster = cluster(LbPolicy::Random, None);
        cluster.locality_lb.healthy_panic_percent = percent;
        shares(&build(&cluster, &endpoints, None), 4_000, |_| None)
    };
    assert_eq!(with(50).len(), 4, "a quarter is below the half");
    assert_eq!(with(20).len(), 1, "and above a fifth");
    assert_eq!(with(0).len(), 1);
    let mut sick = cluster(LbPolicy::Random, None);
    let nobody = all(vec![at(0, None, vec![endpoint(1, 1, Health::Unhealthy)])]);
    assert!(shares(&build(&sick, &nobody, None), 1, |_| None).is_empty());
    sick.locality_lb.healthy_panic_percent = 50;
    assert_eq!(shares(&build(&sick, &nobody, None), 1, |_| None).len(), 1);
}

#[test]
fn priorities_tried_before_are_avoided_while_others_serve() {
    let one = |n| vec![endpoint(n, 1, Health::Healthy)];
    let endpoints = all(vec![at(0, None, one(1)), at(1, None, one(2))]);
    let balancer = build(&cluster(LbPolicy::Random, None), &endpoints, None);
    let mut rng = StdRng::seed_from_u64(1);
    let mut pick = |excluded: &[u32]| {
        let context = PickContext { excluded, ..PickContext::default() };
        balancer.pick(&context, &mut rng).unwrap().endpoint.address.clone()
    };
    assert_eq!(pick(&[]), address(1));
    assert_eq!(pick(&[0]), address(2));
    assert_eq!(pick(&[0, 1]), address(1), "all were tried: as if none was");
}

#[test]
fn failed_checks_take_out_and_bring_back() {
    let balancer = build(&cluster(LbPolicy::Random, None), &some(2), None);
    let state = &balancer.hosts()[0].state;
    state.set_failed_check(true, 0);
    balancer.refresh();
    assert_eq!(shares(&balancer, 100, |_| None).len(), 1);
    state.set_failed_check(false, 0);
    balancer.refresh();
    assert_eq!(shares(&balancer, 100, |_| None).len(), 2);
}
