use crate::{Balancer, Ejection, EjectionCause, HostState, Outcome, PickContext};
use rand::{SeedableRng, rngs::StdRng};
use sidecar_model::{
    Address, Cluster, Endpoint, Endpoints, Health, Locality, LocalityEndpoints, Metadata,
    cluster::{
        CircuitBreakers, ClusterKind, HashFunction, LbPolicy, LocalityLb, OutlierDetection, UpstreamHttp,
    },
};
use std::{collections::HashMap, sync::Arc, time::Duration};

mod outliers;
mod policies;
mod subsets;

fn rules() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 0,
        enforcing_consecutive_gateway_failure: 100,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 10,
        always_eject_one: true,
        enforcing_success_rate: 0,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_failure_percentage: 0,
        failure_percentage_threshold: 85,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        enforcing_local_origin_success_rate: 0,
        enforcing_failure_percentage_local_origin: 0,
        successful_check_unejects: true,
    }
}

fn cluster(lb: LbPolicy, outlier: Option<OutlierDetection>) -> Cluster {
    Cluster {
        name: "c".into(),
        alt_stat_name: "".into(),
        kind: ClusterKind::Static,
        load_assignment: None,
        lb,
        locality_lb: LocalityLb { healthy_panic_percent: 0, ..LocalityLb::default() },
        connect_timeout: Duration::from_secs(10),
        circuit_breakers: CircuitBreakers::default(),
        outlier,
        http: UpstreamHttp::default(),
        tls: None,
        transport_socket_matches: vec![],
        proxy_protocol: None,
        tcp_keepalive: None,
        source_address: None,
        per_connection_buffer_bytes_max: 1 << 20,
        tcp_idle_timeout: None,
        metadata: Metadata::default(),
        subsets: None,
        health_checks: vec![],
        ignore_health_on_host_removal: true,
    }
}

fn address(n: u8) -> Address {
    Address::Socket(([10, 0, 0, n], 80).into())
}

fn endpoint(n: u8, weight: u32, health: Health) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: address(n),
        weight,
        health,
        hostname: "".into(),
        metadata: Metadata::default(),
    })
}

fn at(priority: u32, weight: Option<u32>, endpoints: Vec<Arc<Endpoint>>) -> LocalityEndpoints {
    LocalityEndpoints { locality: Locality::default(), priority, weight, endpoints }
}

fn all(localities: Vec<LocalityEndpoints>) -> Endpoints {
    Endpoints {
        name: "c".into(),
        localities,
        drop_overloads: vec![],
        overprovisioning_percent: None,
        weighted_priority_health: false,
    }
}

fn some(count: u8) -> Endpoints {
    all(vec![at(0, None, (1..=count).map(|n| endpoint(n, 1, Health::Healthy)).collect())])
}

fn least_request() -> LbPolicy {
    LbPolicy::LeastRequest { choices: 2, slow_start: None, active_request_bias: 1.0 }
}

fn build(cluster: &Cluster, endpoints: &Endpoints, previous: Option<&Balancer>) -> Balancer {
    Balancer::new(cluster, endpoints, previous, 0)
}

/// Reports an outcome; the ejection of the host itself, if that came of it.
fn report(
    balancer: &Balancer,
    host: &HostState,
    outcome: Outcome,
    now_ms: u64,
    rng: &mut StdRng,
) -> Option<Ejection> {
    let mut found = None;
    balancer.report(host, outcome, now_ms, rng, |one, ejection| {
        if std::ptr::eq(&raw const *one.state, host) {
            found = Some(ejection);
        }
    });
    found
}

/// Shares of `count` picks by address.
fn shares(balancer: &Balancer, count: usize, hash: impl Fn(usize) -> Option<u64>) -> HashMap<Address, usize> {
    let mut rng = StdRng::seed_from_u64(7);
    let mut shares = HashMap::new();
    for i in 0..count {
        if let Some(host) = balancer.pick(&PickContext { hash: hash(i), ..PickContext::default() }, &mut rng)
        {
            *shares.entry(host.endpoint.address.clone()).or_default() += 1;
        }
    }
    shares
}

#[test]
fn round_robin_is_even() {
    let balancer = build(&cluster(LbPolicy::RoundRobin { slow_start: None }, None), &some(3), None);
    assert_eq!(shares(&balancer, 300, |_| None).values().copied().collect::<Vec<_>>(), [100, 100, 100]);
}

#[test]
fn weights_are_kept() {
    let endpoints =
        all(vec![at(0, None, vec![endpoint(1, 3, Health::Healthy), endpoint(2, 1, Health::Healthy)])]);
    let balancer = build(&cluster(LbPolicy::Random, None), &endpoints, None);
    let first = shares(&balancer, 10_000, |_| None)[&address(1)];
    assert!((7_300..7_700).contains(&first), "{first}");
}

#[test]
fn the_less_busy_endpoint_is_preferred() {
    let balancer = build(&cluster(least_request(), None), &some(2), None);
    (0..10).for_each(|_| balancer.hosts()[0].state.begin());
    let busy = shares(&balancer, 1000, |_| None).get(&address(1)).copied().unwrap_or(0);
    // Both draws fall on the busy one in a quarter of the cases.
    assert!((180..320).contains(&busy), "{busy}");
}

#[test]
fn unhealthy_and_tried_endpoints_are_avoided() {
    let endpoints = all(vec![at(
        0,
        None,
        vec![
            endpoint(1, 1, Health::Healthy),
            endpoint(2, 1, Health::Draining),
            endpoint(3, 1, Health::Healthy),
        ],
    )]);
    let balancer = build(&cluster(least_request(), None), &endpoints, None);
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..100 {
        let context = PickContext { previous: &[address(1)], ..PickContext::default() };
        assert_eq!(balancer.pick(&context, &mut rng).unwrap().endpoint.address, address(3));
        let context = PickContext { previous: &[address(1), address(3)], ..PickContext::default() };
        assert!(balancer.pick(&context, &mut rng).is_some(), "a tried endpoint is better than none");
    }
    assert!(
        build(&cluster(least_request(), None), &all(vec![]), None)
            .pick(&PickContext::default(), &mut rng)
            .is_none()
    );
}

#[test]
fn consistent_hashing_moves_little() {
    for lb in [
        LbPolicy::RingHash { ring_size_min: 1024, ring_size_max: 8 << 20, hash: HashFunction::XxHash },
        LbPolicy::Maglev { table_size: 65537 },
    ] {
        let cluster = cluster(lb, None);
        let (five, six) = (build(&cluster, &some(5), None), build(&cluster, &some(6), None));
        let mut rng = StdRng::seed_from_u64(3);
        let (mut same, mut counts) = (0, HashMap::new());
        for key in 0..10_000u64 {
            let context =
                PickContext { hash: Some(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)), ..PickContext::default() };
            let a = five.pick(&context, &mut rng).unwrap().endpoint.address.clone();
            assert_eq!(a, five.pick(&context, &mut rng).unwrap().endpoint.address, "one key, one endpoint");
            same += usize::from(a == six.pick(&context, &mut rng).unwrap().endpoint.address);
            *counts.entry(a).or_insert(0) += 1;
        }
        assert!(same > 7_400, "one endpoint more must move about a sixth: {same} stayed");
        assert!(counts.values().all(|n| (1_400..2_700).contains(n)), "{counts:?}");
    }
}

#[test]
fn the_next_priority_helps_when_the_first_is_ill() {
    let sick = |n| endpoint(n, 1, Health::Unhealthy);
    let well = |n| endpoint(n, 1, Health::Healthy);
    let share_of_first = |first: Vec<Arc<Endpoint>>| {
        let balancer = build(
            &cluster(LbPolicy::Random, None),
            &all(vec![at(0, None, first), at(1, None, vec![well(9)])]),
            None,
        );
        10_000 - shares(&balancer, 10_000, |_| None).get(&address(9)).copied().unwrap_or(0)
    };
    assert_eq!(
        share_of_first(vec![well(1), well(2), well(3), sick(4)]),
        10_000,
        "three of four with factor 1.4 are enough"
    );
    let half = share_of_first(vec![well(1), sick(2)]);
    assert!((6_800..7_200).contains(&half), "half of them carry 70 %: {half}");
    assert_eq!(share_of_first(vec![sick(1)]), 0);
}

#[test]
fn localities_share_by_weight() {
    let mut cluster = cluster(LbPolicy::Random, None);
    cluster.locality_lb.weighted_localities = true;
    let endpoints = all(vec![
        at(0, Some(80), vec![endpoint(1, 1, Health::Healthy)]),
        at(0, Some(20), vec![endpoint(2, 1, Health::Healthy)]),
    ]);
    let far = shares(&build(&cluster, &endpoints, None), 10_000, |_| None)[&address(2)];
    assert!((1_850..2_150).contains(&far), "{far}");
}

#[test]
fn five_failures_in_a_row_eject_and_time_returns() {
    let balancer = build(&cluster(least_request(), Some(rules())), &some(2), None);
    let mut rng = StdRng::seed_from_u64(1);
    let sick = balancer.hosts()[0].state.clone();
    for _ in 0..4 {
        assert_eq!(report(&balancer, &sick, Outcome::Status(500), 1_000, &mut rng), None);
    }
    assert_eq!(
        report(&balancer, &sick, Outcome::Status(200), 1_000, &mut rng),
        None,
        "a success starts the count again"
    );
    for _ in 0..4 {
        assert_eq!(report(&balancer, &sick, Outcome::Status(500), 1_000, &mut rng), None);
    }
    let ejection = report(&balancer, &sick, Outcome::LocalFailure, 1_000, &mut rng).unwrap();
    assert_eq!((ejection.cause, ejection.until_ms), (EjectionCause::Consecutive5xx, 31_000));
    let during = PickContext { now_ms: 30_999, ..PickContext::default() };
    assert!((0..200).all(|_| balancer.pick(&during, &mut rng).unwrap().endpoint.address == address(2)));
    let after = PickContext { now_ms: 31_000, ..PickContext::default() };
    assert!((0..200).any(|_| balancer.pick(&after, &mut rng).unwrap().endpoint.address == address(1)));
    // The second time lasts twice as long; states outlive a change of endpoints.
    let next = build(&cluster(least_request(), Some(rules())), &some(3), Some(&balancer));
    let ejection = (0..5).find_map(|_| report(&next, &sick, Outcome::Status(503), 32_000, &mut rng)).unwrap();
    assert_eq!(ejection.until_ms, 92_000);
}

#[test]
fn the_last_endpoint_in_service_stays() {
    let balancer = build(
        &cluster(least_request(), Some(OutlierDetection { max_ejection_percent: 100, ..rules() })),
        &some(2),
        None,
    );
    let mut rng = StdRng::seed_from_u64(1);
    let mut fail = |index: usize| {
        (0..5).find_map(|_| {
            report(&balancer, &balancer.hosts()[index].state, Outcome::Status(500), 0, &mut rng)
        })
    };
    assert!(fail(0).is_some());
    assert!(fail(1).is_none());
}

#[test]
fn ten_percent_of_thirty_is_three() {
    let balancer = build(&cluster(least_request(), Some(rules())), &some(30), None);
    let mut rng = StdRng::seed_from_u64(1);
    let ejected = (0..30)
        .filter(|i| {
            (0..5).any(|_| {
                report(&balancer, &balancer.hosts()[*i].state, Outcome::Status(500), 0, &mut rng).is_some()
            })
        })
        .count();
    assert_eq!(ejected, 3);
}

#[test]
fn gateway_failures_count_on_their_own() {
    let rules = OutlierDetection { consecutive_5xx: 0, consecutive_gateway_failure: 2, ..rules() };
    let balancer = build(&cluster(least_request(), Some(rules)), &some(2), None);
    let mut rng = StdRng::seed_from_u64(1);
    let host = balancer.hosts()[0].state.clone();
    for status in [500, 500, 500, 502, 500, 502] {
        assert_eq!(report(&balancer, &host, Outcome::Status(status), 0, &mut rng), None, "{status}");
    }
    assert_eq!(
        report(&balancer, &host, Outcome::Status(504), 0, &mut rng).unwrap().cause,
        EjectionCause::ConsecutiveGatewayFailure
    );
}
