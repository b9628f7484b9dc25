use super::*;
use crate::fixtures::{http_filter as message, percent};
use crate::matcher::Fraction;
use policies_xds::any;
use policies_xds::core::{HeaderValue, HeaderValueOption};
use policies_xds::fault::{FaultAbort, fault_abort::ErrorType};
use policies_xds::header_mutation::Mutations;
use policies_xds::mutation_rules::HeaderMutation as MutationMessage;

fn unknown() -> Any {
    Any { type_url: "type.googleapis.com/wasm".into(), value: vec![] }
}

fn abort() -> HttpFault {
    HttpFault {
        abort: Some(FaultAbort {
            error_type: Some(ErrorType::HttpStatus(418)),
            percentage: Some(percent(100)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn unknown_filters_pass_only_when_they_are_optional() {
    let mut filter = message("wasm", unknown());
    let error = http_filter(&filter).unwrap_err();
    assert_eq!(error.field, "typed_config");
    assert!(error.reason.contains("`wasm`"));
    filter.is_optional = true;
    assert_eq!(http_filter(&filter), Ok(None));
    let mut broken = message("envoy.fault", any(&abort()));
    broken.is_optional = true;
    if let Some(ConfigType::TypedConfig(config)) = &mut broken.config_type {
        config.value = vec![0xff];
    }
    assert_eq!(http_filter(&broken).unwrap_err().field, "typed_config", "a known one must be right");
}

#[test]
fn structs_stand_for_istios_filters() {
    let packed = TypedStruct { type_url: type_url::ISTIO_STATS.into(), value: None };
    for url in [type_url::TYPED_STRUCT_XDS, type_url::TYPED_STRUCT_UDPA] {
        let config = Any { type_url: url.into(), ..any(&packed) };
        let filter = http_filter(&message("istio.stats", config)).unwrap().unwrap();
        assert_eq!(filter.kind, HttpFilterKind::Native(NativeFilter::Stats));
    }
}

#[test]
fn routes_override_filters_by_name() {
    let disabled = FilterConfig { disabled: true, ..Default::default() };
    let optional = FilterConfig { config: Some(unknown()), is_optional: true, ..Default::default() };
    let wrapped = FilterConfig { config: Some(any(&CorsPolicy::default())), ..Default::default() };
    let configs = [
        ("envoy.filters.http.fault".to_owned(), any(&abort())),
        ("cors".to_owned(), any(&wrapped)),
        ("off".to_owned(), any(&disabled)),
        ("optional".to_owned(), any(&optional)),
        ("rbac".to_owned(), any(&rbac_pb::RbacPerRoute { rbac: None })),
    ];
    let filters = route_filters(&configs.clone().into()).unwrap();
    let names: Vec<_> = filters.entries.iter().map(|entry| &*entry.name).collect();
    assert_eq!(
        names,
        ["cors", "envoy.filters.http.fault", "off", "rbac"],
        "in order, without the optional one"
    );
    assert_eq!(filters.fault().unwrap().abort.as_ref().unwrap().chance, Fraction::ALL);
    assert_eq!(filters.cors().unwrap().enabled, Fraction::ALL);
    assert!(filters.of("off").unwrap().disabled);
    assert_eq!(filters.of("rbac").unwrap().config, Some(RouteFilterConfig::Rbac(None)));

    let mut bad: HashMap<_, _> = configs.into();
    bad.insert("wasm".into(), unknown());
    assert_eq!(route_filters(&bad).unwrap_err().field, "typed_per_filter_config[`wasm`]");
    bad.insert("wasm".into(), any(&FilterConfig { config: Some(unknown()), ..Default::default() }));
    assert_eq!(route_filters(&bad).unwrap_err().field, "typed_per_filter_config[`wasm`].config");
}

#[test]
fn header_mutations_keep_their_meaning_or_are_refused() {
    let append = |name: &str| MutationMessage {
        action: Some(Action::Append(HeaderValueOption {
            header: Some(HeaderValue { key: name.into(), value: "v".into(), ..Default::default() }),
            ..Default::default()
        })),
    };
    let remove = |name: &str| MutationMessage { action: Some(Action::Remove(name.into())) };
    let with = |request_mutations| Mutations { request_mutations, ..Default::default() };
    let mutation = header_mutation(Some(&with(vec![remove("a"), append("a"), append("b")]))).unwrap();
    assert_eq!((mutation.request.remove.len(), mutation.request.add.len()), (1, 2));
    let error = header_mutation(Some(&with(vec![append("a"), remove("A")]))).unwrap_err();
    assert_eq!(error.field, "mutations.request_mutations[1].remove");
}
