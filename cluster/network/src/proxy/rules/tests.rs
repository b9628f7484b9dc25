use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::*;
use crate::services::tests::{service, slice};

fn view(spec: Json, endpoints: Json) -> ServiceView {
    ServiceView { service: Arc::new(service(spec)), groups: vec![Arc::new(slice("s", 8080, endpoints))] }
}

fn web(extra: Json) -> Json {
    let mut spec =
        json!({"clusterIP": "10.96.0.5", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

fn endpoints(count: u8) -> Json {
    (0..count).map(|i| json!({"addresses": [format!("10.244.{}.{}", 1 + i % 2, 2 + i)]})).collect()
}

fn node() -> NodeView {
    NodeView { name: "node1".into(), pod_cidr: "10.244.1.0/24".parse().unwrap() }
}

/// How many buckets of the service's own address each endpoint has.
fn shares(elements: &BTreeMap<Key, Value>) -> HashMap<Ipv4Addr, u32> {
    let mut shares = HashMap::new();
    for (key, value) in elements {
        if let (Key::Bucket(_, Front::Address(..), _), Value::Endpoint(ip, _)) = (key, value) {
            *shares.entry(*ip).or_default() += 1;
        }
    }
    shares
}

#[test]
fn few_endpoints_have_one_bucket_each() {
    let elements = elements(&view(web(json!({})), endpoints(3)), &node());
    let address = Front::Address("10.96.0.5".parse().unwrap(), Protocol::Tcp, 80);
    assert_eq!(elements[&Key::Dispatch(address)], Value::Goto(Spread::Random(3)));
    assert_eq!(
        elements[&Key::Dispatch(Front::NodePort(Protocol::Tcp, 30080))],
        Value::Goto(Spread::Random(3))
    );
    assert_eq!(
        elements[&Key::Bucket(Spread::Random(3), address, 2)],
        Value::Endpoint("10.244.2.3".parse().unwrap(), 8080)
    );
    assert_eq!(elements.len(), 8);
    assert!(shares(&elements).values().all(|share| *share == 1));
}

#[test]
fn many_endpoints_share_buckets_almost_evenly() {
    for (count, buckets) in [(9, 64), (64, 64), (65, 512), (200, 512)] {
        let shares = shares(&elements(&view(web(json!({})), endpoints(count)), &node()));
        let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
        assert_eq!((shares.len(), shares.values().sum::<u32>()), (count.into(), buckets));
        assert!(most - least <= 1, "{count} endpoints: {least} to {most}");
    }
}

#[test]
fn a_service_without_endpoint_or_address_has_no_element() {
    assert!(elements(&view(web(json!({})), json!([])), &node()).is_empty());
    assert!(elements(&view(web(json!({"clusterIP": "None"})), endpoints(2)), &node()).is_empty());
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    assert!(elements(&view(external, endpoints(2)), &node()).is_empty());
}

#[test]
fn local_policies_keep_to_the_node() {
    let of = |extra| elements(&view(web(extra), endpoints(4)), &node());
    let local = shares(&of(json!({"internalTrafficPolicy": "Local"})));
    assert!(local.len() == 2 && local.keys().all(|ip| ip.octets()[2] == 1), "{local:?}");
    let external = of(json!({"externalTrafficPolicy": "Local"}));
    assert_eq!(shares(&external).len(), 4);
    assert_eq!(
        external[&Key::Dispatch(Front::NodePort(Protocol::Tcp, 30080))],
        Value::Goto(Spread::Random(2))
    );
}

#[test]
fn sticky_clients_move_only_when_their_endpoint_goes() {
    let of = |count| elements(&view(web(json!({"sessionAffinity": "ClientIP"})), endpoints(count)), &node());
    let (five, four) = (of(5), of(4));
    assert_eq!(shares(&five).values().sum::<u32>(), 256);
    assert!(shares(&five).values().all(|share| (20..90).contains(share)), "{:?}", shares(&five));
    let gone: Ipv4Addr = "10.244.1.6".parse().unwrap();
    for (key, value) in &five {
        let moved = four[key] != *value;
        let was_gone = matches!(value, Value::Endpoint(ip, _) if *ip == gone);
        assert_eq!(moved, was_gone, "{key:?}");
    }
}
