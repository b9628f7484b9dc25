use serde_json::json;

use super::*;

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "default".into(), name: name.into() }
}

pub(crate) fn service(spec: serde_json::Value) -> Service {
    let object =
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec}));
    Service::read(&object.unwrap()).unwrap()
}

/// A slice of `name` whose endpoints listen on `port` under the port name `web`.
pub(crate) fn slice(name: &str, port: u16, endpoints: serde_json::Value) -> EndpointGroup {
    let object = json!({
        "metadata": {"name": format!("{name}-1"), "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": port}],
        "endpoints": endpoints,
    });
    EndpointGroup::read(&serde_json::from_value(object).unwrap()).unwrap().1
}

fn ready(ips: &[&str]) -> serde_json::Value {
    ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect()
}

#[test]
fn endpoints_that_serve_while_terminating_are_the_last_resort() {
    let endpoints = json!([
        {"addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.244.1.2"], "conditions": {"ready": false, "serving": false}},
    ]);
    let web = service(json!({"clusterIP": "10.96.0.5", "ports": [{"name": "web", "port": 80}]}));
    let port = web.ports[0].clone();
    let mut view =
        ServiceView { service: Arc::new(web), groups: vec![Arc::new(slice("s", 8080, endpoints))] };
    let addresses = |view: &ServiceView| {
        view.backends(&port)
            .iter()
            .map(|(endpoint, port)| format!("{}:{port}", endpoint.ip))
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&view), ["10.244.1.3:8080"]);
    view.groups.push(Arc::new(slice("s", 9090, ready(&["10.244.1.9", "10.244.1.4"]))));
    assert_eq!(addresses(&view), ["10.244.1.4:9090", "10.244.1.9:9090"]);
}

#[tokio::test]
async fn a_subscription_collects_names_and_forgets_what_was_taken() {
    let catalog = ServiceCatalog::new();
    let subscription = catalog.subscribe();
    catalog.put_service(&key("a"), service(json!({"clusterIP": "10.96.0.5"})));
    catalog.put_service(&key("a"), service(json!({"clusterIP": "10.96.0.6"})));
    catalog.put_slice(&key("b-1"), &key("b"), EndpointGroup::default());
    assert_eq!(subscription.changed().await, [key("a"), key("b")].into());
    catalog.remove_slice(&key("b-1"));
    assert_eq!(subscription.changed().await, [key("b")].into());
}

#[test]
fn the_indexes_follow_changes() {
    let catalog = ServiceCatalog::new();
    let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    catalog.put_service(&key("a"), service(json!({"clusterIP": "10.96.0.5"})));
    assert_eq!(catalog.by_cluster_ip(ip("10.96.0.5")), Some(key("a")));
    catalog.put_service(&key("a"), service(json!({"clusterIP": "10.96.0.6"})));
    assert_eq!(catalog.by_cluster_ip(ip("10.96.0.5")), None);
    catalog.put_slice(&key("a-1"), &key("a"), slice("a", 1, ready(&["10.244.1.2", "10.244.1.3"])));
    catalog.put_slice(&key("a-2"), &key("a"), slice("a", 1, ready(&["10.244.1.3"])));
    catalog.put_slice(&key("a-1"), &key("a"), slice("a", 1, ready(&["10.244.1.4"])));
    let owned = |text: &str| catalog.by_endpoint_ip(ip(text)).len();
    assert_eq!((owned("10.244.1.2"), owned("10.244.1.3"), owned("10.244.1.4")), (0, 1, 1));
    assert!(catalog.has_namespace("default"));
    catalog.remove_service(&key("a"));
    assert!(!catalog.has_namespace("default"));
    assert!(catalog.view(&key("a")).is_none());
}
