use super::*;
use policies_xds::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use policies_xds::core::{GrpcService as GrpcMessage, RuntimeFractionalPercent};
use policies_xds::protobuf::{self, UInt32Value};
use policies_xds::ratelimit_config::RateLimitServiceConfig;
use policies_xds::route::rate_limit::action::{GenericKey, RemoteAddress, RequestHeaders};

fn bucket(max_tokens: u32, seconds: i64) -> types::TokenBucket {
    types::TokenBucket {
        max_tokens,
        tokens_per_fill: Some(UInt32Value { value: max_tokens }),
        fill_interval: Some(protobuf::Duration { seconds, nanos: 0 }),
    }
}

fn descriptor(value: &str, bucket: types::TokenBucket) -> LocalRateLimitDescriptor {
    let entry = rate_limit_descriptor::Entry { key: "k".into(), value: value.into() };
    LocalRateLimitDescriptor { entries: vec![entry], token_bucket: Some(bucket), ..Default::default() }
}

fn always() -> Option<RuntimeFractionalPercent> {
    let value = types::FractionalPercent { numerator: 100, denominator: 0 };
    Some(RuntimeFractionalPercent { default_value: Some(value), ..Default::default() })
}

fn message() -> LocalMessage {
    LocalMessage { stat_prefix: "limit".into(), token_bucket: Some(bucket(10, 1)), ..Default::default() }
}

#[test]
fn nothing_is_limited_unless_it_is_said() {
    let model = local(&message()).unwrap();
    assert_eq!((model.enabled, model.enforced), (NEVER, NEVER));
    assert_eq!((model.status, model.always_default), (StatusCode::TOO_MANY_REQUESTS, true));
    let on = LocalMessage { filter_enabled: always(), filter_enforced: always(), ..message() };
    assert_eq!(local(&on).unwrap().enforced, Fraction::ALL);
}

#[test]
fn the_slowest_descriptor_comes_first() {
    let descriptors = vec![descriptor("fast", bucket(100, 1)), descriptor("slow", bucket(100, 60))];
    let model = local(&LocalMessage { descriptors, ..message() }).unwrap();
    assert_eq!(&*model.descriptors[0].entries[0].value, "slow");
}

#[test]
fn what_is_not_done_or_makes_no_sense_is_refused_by_name() {
    let quick = types::TokenBucket {
        fill_interval: Some(protobuf::Duration { seconds: 0, nanos: 49_000_000 }),
        ..bucket(1, 0)
    };
    let odd = LocalMessage {
        token_bucket: Some(bucket(10, 2)),
        descriptors: vec![descriptor("v", bucket(1, 3))],
        ..message()
    };
    for (field, message) in [
        ("stat_prefix", LocalMessage { stat_prefix: String::new(), ..message() }),
        ("token_bucket.max_tokens", LocalMessage { token_bucket: Some(bucket(0, 1)), ..message() }),
        ("token_bucket.fill_interval", LocalMessage { token_bucket: Some(quick), ..message() }),
        ("descriptors", odd),
        (
            "descriptors[0].entries[0].value",
            LocalMessage { descriptors: vec![descriptor("", bucket(1, 1))], ..message() },
        ),
        (
            "local_rate_limit_per_downstream_connection",
            LocalMessage { local_rate_limit_per_downstream_connection: true, ..message() },
        ),
    ] {
        assert_eq!(local(&message).unwrap_err().field, field);
    }
}

#[test]
fn the_service_has_twenty_milliseconds_and_fails_open_unless_told() {
    let target = EnvoyGrpc { cluster_name: "limits".into(), ..Default::default() };
    let service =
        GrpcMessage { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..Default::default() };
    let message = GlobalMessage {
        domain: "d".into(),
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(service),
            ..Default::default()
        }),
        ..Default::default()
    };
    let model = global(&message).unwrap();
    assert_eq!(model.service.timeout, Duration::from_millis(20));
    assert!(!model.failure_mode_deny);
    assert_eq!(model.status_on_error, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(global(&GlobalMessage { domain: String::new(), ..message }).unwrap_err().field, "domain");
}

#[test]
fn actions_become_entries() {
    let action = |specifier| Action { action_specifier: Some(specifier) };
    let limit = |actions| route::RateLimit { actions, ..Default::default() };
    let generic = GenericKey { descriptor_value: "v".into(), ..Default::default() };
    let header =
        RequestHeaders { header_name: "X-A".into(), descriptor_key: "a".into(), skip_if_absent: true };
    let limits = rate_limits(
        "rate_limits",
        &[limit(vec![
            action(ActionSpecifier::GenericKey(generic)),
            action(ActionSpecifier::RequestHeaders(header)),
            action(ActionSpecifier::RemoteAddress(RemoteAddress {})),
        ])],
    )
    .unwrap();
    let LimitAction::Fixed(fixed) = &limits[0].actions[0] else { panic!("{limits:?}") };
    assert_eq!((&*fixed.key, &*fixed.value), ("generic_key", "v"));
    let LimitAction::Header { name, .. } = &limits[0].actions[1] else { panic!("{limits:?}") };
    assert_eq!(name, "x-a");
    let error = rate_limits("rate_limits", &[limit(vec![])]).unwrap_err();
    assert_eq!(error.field, "rate_limits[0].actions");
    let error = rate_limits("rate_limits", &[limit(vec![Action { action_specifier: None }])]).unwrap_err();
    assert_eq!(error.field, "rate_limits[0].actions[0].action_specifier");
}
