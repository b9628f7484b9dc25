use super::*;
use crate::fixtures::{millis, number};
use crate::health_check::{Finding, Verdict};

fn message(checker: HealthChecker) -> core::HealthCheck {
    core::HealthCheck {
        timeout: millis(1000),
        interval: millis(5000),
        unhealthy_threshold: number(3),
        healthy_threshold: number(2),
        health_checker: Some(checker),
        ..Default::default()
    }
}

fn http_message() -> pb::HttpHealthCheck {
    pb::HttpHealthCheck { path: "/healthz".into(), ..Default::default() }
}

fn check() -> HealthCheck {
    health_check(&message(HealthChecker::HttpHealthCheck(http_message()))).unwrap()
}

#[test]
fn envoys_defaults() {
    let check = check();
    let Probe::Http(probe) = &check.probe else { panic!("{check:?}") };
    assert_eq!((probe.method.as_str(), &*probe.path, probe.http2), ("GET", "/healthz", false));
    assert_eq!(probe.finding(200), Finding::Good);
    assert_eq!((probe.finding(201), probe.finding(503)), (Finding::Worst, Finding::Worst));
    assert_eq!(check.no_traffic_interval, Duration::from_secs(60));
    assert_eq!(check.unhealthy_edge_interval, Duration::from_secs(5));
}

#[test]
fn statuses_are_ranges() {
    let mut http = http_message();
    http.expected_statuses = vec![Int64Range { start: 200, end: 300 }];
    http.retriable_statuses = vec![Int64Range { start: 429, end: 430 }];
    let check = health_check(&message(HealthChecker::HttpHealthCheck(http.clone()))).unwrap();
    let Probe::Http(probe) = &check.probe else { panic!("{check:?}") };
    let found = [204, 300, 429].map(|status| probe.finding(status));
    assert_eq!(found, [Finding::Good, Finding::Worst, Finding::Bad]);
    http.expected_statuses = vec![Int64Range { start: 200, end: 200 }];
    let error = health_check(&message(HealthChecker::HttpHealthCheck(http))).unwrap_err();
    assert_eq!(error.field, "http_health_check.expected_statuses[0].end");
}

#[test]
fn bytes_of_tcp_are_hexadecimal() {
    let text = |text: &str| pb::Payload { payload: Some(payload::Payload::Text(text.into())) };
    let with = |payload| {
        let tcp = pb::TcpHealthCheck { send: Some(payload), ..Default::default() };
        health_check(&message(HealthChecker::TcpHealthCheck(tcp)))
    };
    assert_eq!(
        with(text("50494eFF")).unwrap().probe,
        Probe::Tcp { send: b"PIN\xff".to_vec(), receive: vec![] }
    );
    for bad in ["5", "5g", ""] {
        assert_eq!(with(text(bad)).unwrap_err().field, "tcp_health_check.send.text");
    }
}

#[test]
fn thresholds_decide_and_the_first_finding_alone() {
    let check = check();
    let mut verdict = Verdict::default();
    let mut add = |finding| {
        let changed = verdict.add(&check, finding);
        (verdict.failed == Some(true), changed)
    };
    assert_eq!(add(Finding::Good), (false, true), "the first decides");
    assert_eq!([add(Finding::Bad), add(Finding::Bad)], [(false, false); 2]);
    assert_eq!(add(Finding::Good), (false, false), "starts the count again");
    assert_eq!(
        [add(Finding::Bad), add(Finding::Bad), add(Finding::Bad)],
        [(false, false), (false, false), (true, true)]
    );
    assert_eq!([add(Finding::Good), add(Finding::Good)], [(true, false), (false, true)]);
    assert_eq!(add(Finding::Worst), (true, true), "no threshold counts");
}

#[test]
fn intervals_depend_on_what_was_found() {
    let mut message = message(HealthChecker::HttpHealthCheck(http_message()));
    message.unhealthy_interval = millis(2);
    message.unhealthy_edge_interval = millis(3);
    message.healthy_edge_interval = millis(4);
    message.no_traffic_interval = millis(6);
    message.no_traffic_healthy_interval = millis(7);
    message.interval_jitter = millis(1000);
    message.interval_jitter_percent = 50;
    let check = health_check(&message).unwrap();
    let verdict = |failed| Verdict { failed: Some(failed), ..Verdict::default() };
    let pause = |failed, changed, traffic| check.pause(verdict(failed), changed, traffic, 0.0).as_millis();
    assert_eq!([pause(true, true, true), pause(false, true, false)], [3, 4]);
    assert_eq!([pause(true, false, true), pause(false, false, true)], [2, 5000]);
    assert_eq!([pause(true, false, false), pause(false, false, false)], [6, 7]);
    assert_eq!(check.pause(verdict(false), false, true, 0.5).as_millis(), 5000 + 500 + 1250);
}
