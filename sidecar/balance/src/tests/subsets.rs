//! Subsets by metadata and their fallbacks.

use super::*;
use sidecar_model::cluster::{SubsetFallback, SubsetSelector, Subsets};

fn labels(pairs: &[(&str, &str)]) -> Metadata {
    let object: serde_json::Map<String, serde_json::Value> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let mut metadata = Metadata::default();
    metadata.set("envoy.lb", object.into());
    metadata
}

fn labelled(n: u8, pairs: &[(&str, &str)]) -> Arc<Endpoint> {
    Arc::new(Endpoint { metadata: labels(pairs), ..(*endpoint(n, 1, Health::Healthy)).clone() })
}

fn selector(keys: &[&str], fallback: Option<SubsetFallback>) -> SubsetSelector {
    SubsetSelector { keys: keys.iter().map(|key| (*key).into()).collect(), fallback }
}

/// v1: 1 and 2, v2: 3; 2 and 3 are of the stage `prod`.
fn found(
    fallback: SubsetFallback,
    selectors: Vec<SubsetSelector>,
    wishes: [Option<&Metadata>; 2],
) -> Vec<u8> {
    let mut cluster = cluster(LbPolicy::Random, None);
    cluster.subsets = Some(Subsets {
        fallback,
        default_subset: vec![("stage".into(), "prod".into())],
        selectors,
        locality_weight_aware: false,
    });
    let endpoints = all(vec![at(
        0,
        None,
        vec![
            labelled(1, &[("version", "v1")]),
            labelled(2, &[("version", "v1"), ("stage", "prod")]),
            labelled(3, &[("version", "v2"), ("stage", "prod")]),
        ],
    )]);
    let balancer = build(&cluster, &endpoints, None);
    let mut rng = StdRng::seed_from_u64(9);
    let context = PickContext { metadata: wishes, ..PickContext::default() };
    let picks: std::collections::BTreeSet<_> = (0..200)
        .filter_map(|_| balancer.pick(&context, &mut rng))
        .map(|host| host.endpoint.address.to_string())
        .collect();
    (1..=3).filter(|n| picks.contains(&address(*n).to_string())).collect()
}

#[test]
fn labels_choose_and_fallbacks_decide() {
    let by_version = || vec![selector(&["version"], None), selector(&["stage", "version"], None)];
    let (v1, v9, none) = (labels(&[("version", "v1")]), labels(&[("version", "v9")]), [None, None]);
    assert_eq!(found(SubsetFallback::None, by_version(), [Some(&v1), None]), [1, 2]);
    let both = labels(&[("version", "v1"), ("stage", "prod")]);
    assert_eq!(found(SubsetFallback::None, by_version(), [Some(&both), None]), [2]);
    // The weighted cluster's wish goes before the route's, and adds to it.
    let (stage, v2) = (labels(&[("stage", "prod")]), labels(&[("version", "v2")]));
    assert_eq!(found(SubsetFallback::None, by_version(), [Some(&stage), Some(&v1)]), [2]);
    assert_eq!(found(SubsetFallback::None, by_version(), [Some(&v2), Some(&v1)]), [3]);

    for wishes in [none, [Some(&v9), None], [Some(&stage), None]] {
        assert!(found(SubsetFallback::None, by_version(), wishes).is_empty());
        assert_eq!(found(SubsetFallback::AnyEndpoint, by_version(), wishes), [1, 2, 3]);
        assert_eq!(found(SubsetFallback::DefaultSubset, by_version(), wishes), [2, 3]);
    }
}

#[test]
fn a_selector_may_fall_back_on_its_own() {
    let wish = labels(&[("version", "v1"), ("stage", "none")]);
    let with = |fallback| {
        let selectors = vec![selector(&["version"], None), selector(&["stage", "version"], Some(fallback))];
        found(SubsetFallback::None, selectors, [Some(&wish), None])
    };
    assert_eq!(with(SubsetFallback::Keys(vec!["version".into()])), [1, 2]);
    assert_eq!(with(SubsetFallback::AnyEndpoint), [1, 2, 3]);
    assert_eq!(with(SubsetFallback::DefaultSubset), [2, 3]);
    assert!(with(SubsetFallback::None).is_empty());
}
