//! Services' addresses: balancing, changes, refusals, affinity, node ports, hairpins, UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_network::{NetNs, PodNet};
use serde_json::json;
use tokio::net::UdpSocket;

use crate::api::Api;
use crate::world::{SOON, World, address, connect, greeter, greeting, ip, isolated, namespace};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 5);
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn spec(extra: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"clusterIP": VIP, "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

/// Both nodes with rules that follow `api`, and one pod a name, alternating between the nodes, greeting with its name.
async fn cluster(world: &World, api: &Arc<Api>) -> Vec<PodNet> {
    let catalog = api.catalog().await;
    for node in world.fabric.nodes() {
        tokio::spawn(cluster_network::run_service_proxy(node.clone(), catalog.clone(), || {}));
    }
    let mut pods = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        let pod = world.pod(1 + index % 2, name, None).await;
        greeter(&namespace(&pod), 8080, name).await;
        pods.push(pod);
    }
    pods
}

fn ips(pods: &[PodNet]) -> Vec<Ipv4Addr> {
    pods.iter().map(|pod| pod.ip).collect()
}

/// Calls until `expected` is the set of answers of a run of calls; rules follow the API within moments.
async fn until(from: &NetNs, to: SocketAddr, expected: &[&str]) {
    let deadline = Instant::now() + SOON * 2;
    loop {
        let mut heard = BTreeSet::new();
        for _ in 0..24 {
            heard.insert(greeting(from, to).await.unwrap_or_else(|error| format!("{:?}", error.kind())));
        }
        if heard == expected.iter().map(|name| (*name).to_owned()).collect() {
            return;
        }
        assert!(Instant::now() < deadline, "{to}: heard {heard:?}, expected {expected:?}");
    }
}

#[test]
fn a_services_address_is_shared_by_its_endpoints() {
    isolated("balance", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        api.put_service("web", spec(json!({})));
        api.put_endpoints("web", 8080, &ips(&pods[..3]));
        let vip = address(VIP, 80);
        // From pods of both nodes, from a node itself, and from the fabric, where the API server calls webhooks.
        let fabric = world.fabric.namespace().unwrap();
        for from in [namespace(&pods[0]), namespace(&pods[3]), world.node(1), world.node(2), fabric] {
            until(&from, vip, &["a", "b", "c"]).await;
        }
        let mut counts = BTreeMap::new();
        for _ in 0..600 {
            *counts.entry(greeting(&namespace(&pods[3]), vip).await.unwrap()).or_insert(0) += 1;
        }
        // 200 each expected; six standard deviations are 69.
        assert!(counts.values().all(|count| (130..=270).contains(count)), "{counts:?}");
    });
}

#[test]
fn changes_arrive_element_by_element() {
    isolated("changes", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        let (from, vip) = (namespace(&pods[3]), address(VIP, 80));
        until(&from, vip, &["ConnectionRefused"]).await;
        api.put_service("web", spec(json!({})));
        for count in [1, 4, 2, 3, 0, 1] {
            api.put_endpoints("web", 8080, &ips(&pods[..count]));
            let expected = if count == 0 { &["ConnectionRefused"][..] } else { &NAMES[..count] };
            until(&from, vip, expected).await;
        }
        // More endpoints than there are buckets of one each: everyone else is an address without pod on that port.
        let many: Vec<_> = (0..6).map(|i| Ipv4Addr::new(10, 244, 2, 100 + i)).chain(ips(&pods)).collect();
        api.put_endpoints("web", 8080, &many);
        until(&from, vip, &["a", "b", "c", "d", "HostUnreachable"]).await;
        api.put_endpoints("web", 8080, &ips(&pods[..1]));
        until(&from, vip, &["a"]).await;
        api.delete("services", "web");
        until(&from, vip, &["ConnectionRefused"]).await;
        api.put_service("other", spec(json!({"ports": [{"name": "web", "port": 81}]})));
        api.put_endpoints("other", 8080, &ips(&pods[1..2]));
        until(&from, address(VIP, 81), &["b"]).await;
        until(&from, vip, &["ConnectionRefused"]).await;
        let left = world.node(1).run_blocking(|| nft(&["list", "table", "ip", "mesh_services"])).unwrap();
        assert_eq!(left.matches("goto random").count(), 1, "one service, one verdict:\n{left}");
    });
}

fn nft(arguments: &[&str]) -> String {
    let output = std::process::Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn unknown_services_are_refused_at_once() {
    isolated("unknown", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        let vip = address([10, 96, 200, 200], 443);
        until(&namespace(&pods[0]), vip, &["ConnectionRefused"]).await;
        until(&world.node(1), vip, &["ConnectionRefused"]).await;
        let start = Instant::now();
        connect(&namespace(&pods[1]), vip).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    });
}

#[test]
fn addresses_without_a_pod_are_refused_every_time() {
    isolated("gone", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        until(&namespace(&pods[0]), address(VIP, 80), &["ConnectionRefused"]).await;
        until(&namespace(&pods[1]), address(VIP, 80), &["ConnectionRefused"]).await;
        let start = Instant::now();
        for _ in 0..250 {
            for nobody in [[10, 244, 1, 200], [10, 244, 2, 200], [10, 244, 9, 9], [8, 8, 8, 8]] {
                let error = connect(&namespace(&pods[0]), address(nobody, 80)).await.unwrap_err();
                assert!(
                    matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable),
                    "{error:?}"
                );
            }
        }
        assert!(start.elapsed() < SOON, "1000 refusals took {:?}", start.elapsed());
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    isolated("hairpin", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        api.put_service("web", spec(json!({})));
        api.put_endpoints("web", 8080, &ips(&pods[..1]));
        until(&namespace(&pods[0]), address(VIP, 80), &["a"]).await;
    });
}

#[test]
fn sticky_clients_stay() {
    isolated("sticky", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        api.put_service("web", spec(json!({"sessionAffinity": "ClientIP"})));
        api.put_endpoints("web", 8080, &ips(&pods));
        let vip = address(VIP, 80);
        let mut homes = BTreeSet::new();
        for number in 0..12 {
            let client = world.pod(1 + number % 2, &format!("client{number}"), None).await;
            let client = namespace(&client);
            let deadline = Instant::now() + SOON;
            while connect(&client, vip).await.is_err() {
                assert!(Instant::now() < deadline, "the service never answered");
            }
            let home = greeting(&client, vip).await.unwrap();
            until(&client, vip, &[&home]).await;
            homes.insert(home);
        }
        assert!(homes.len() > 1, "all clients at one endpoint");
    });
}

#[test]
fn node_ports_and_local_policies() {
    isolated("nodeport", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        api.put_service("web", spec(json!({"type": "NodePort"})));
        api.put_endpoints("web", 8080, &ips(&pods));
        let (one, two) = (world.fabric.nodes()[0].address, world.fabric.nodes()[1].address);
        let fabric = world.fabric.namespace().unwrap();
        until(&fabric, address(one, 30080), &NAMES).await;
        until(&namespace(&pods[0]), address(two, 30080), &NAMES).await;
        api.put_service("web", spec(json!({"type": "NodePort", "externalTrafficPolicy": "Local"})));
        until(&fabric, address(one, 30080), &["a", "c"]).await;
        until(&fabric, address(two, 30080), &["b", "d"]).await;
        api.put_service("web", spec(json!({"internalTrafficPolicy": "Local"})));
        until(&namespace(&pods[0]), address(VIP, 80), &["a", "c"]).await;
        until(&namespace(&pods[1]), address(VIP, 80), &["b", "d"]).await;
    });
}

#[test]
fn datagrams_are_translated_too() {
    isolated("udp", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        let server = namespace(&pods[1]).bind_udp(address(Ipv4Addr::UNSPECIFIED, 8080)).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((length, peer)) = server.recv_from(&mut buffer).await {
                let _gone = server.send_to(&buffer[..length], peer).await;
            }
        });
        api.put_service(
            "web",
            json!({"clusterIP": VIP, "ports": [
            {"name": "web", "port": 53, "protocol": "UDP"}]}),
        );
        let slice = json!({"metadata": {"name": "web-u", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "web", "port": 8080, "protocol": "UDP"}],
            "endpoints": [{"addresses": [pods[1].ip]}]});
        api.put("endpointslices", slice);
        let client: UdpSocket =
            namespace(&pods[0]).bind_udp(address(Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        client.connect(address(VIP, 53)).await.unwrap();
        let deadline = Instant::now() + SOON;
        let mut buffer = [0; 64];
        loop {
            let _refused = client.send(b"hello").await;
            let wait = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await;
            if let Ok(Ok(length)) = wait {
                assert_eq!(&buffer[..length], b"hello");
                break;
            }
            assert!(Instant::now() < deadline, "no answer from the service");
        }
    });
}

#[test]
fn rules_survive_a_restart_and_are_repaired() {
    isolated("repair", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        api.put_service("web", spec(json!({})));
        api.put_endpoints("web", 8080, &ips(&pods[..1]));
        let (from, vip) = (namespace(&pods[2]), address(VIP, 80));
        until(&from, vip, &["a"]).await;
        // Somebody flushes the rules: the next change is refused by the kernel, and everything is loaded anew.
        world.node(1).run_blocking(|| nft(&["flush", "ruleset"])).unwrap();
        api.put_endpoints("web", 8080, &ips(&pods[..2]));
        until(&from, vip, &["a", "b"]).await;
        // A second process on the same node loads the same rules over the first's.
        tokio::spawn(cluster_network::run_service_proxy(
            world.fabric.nodes()[0].clone(),
            api.catalog().await,
            || {},
        ));
        until(&from, vip, &["a", "b"]).await;
    });
}

#[test]
fn a_thousand_services_load_quickly_and_change_at_once() {
    isolated("thousand", |world| async move {
        let api = Api::new();
        for number in 0..1000u16 {
            let [high, low] = number.to_be_bytes();
            api.put_service(
                &format!("s{number}"),
                json!({"clusterIP": Ipv4Addr::new(10, 96, 8 + high, low), "ports": [{"name": "web", "port": 80}]}),
            );
            api.put_endpoints(
                &format!("s{number}"),
                8080,
                &[Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 2, 2)],
            );
        }
        let start = Instant::now();
        let pods = cluster(&world, &api).await;
        let vip = address([10, 96, 11, 231], 80);
        until(&namespace(&pods[2]), vip, &["a", "b"]).await;
        let loaded = start.elapsed();
        let start = Instant::now();
        api.put_endpoints("s999", 8080, &ips(&pods[2..3]));
        until(&namespace(&pods[2]), vip, &["c"]).await;
        println!(
            "1000 services: loaded within {loaded:?}, a change seen within {:?} (24 calls included)",
            start.elapsed()
        );
        assert!(loaded < SOON * 3);
    });
}

#[test]
fn the_services_range_is_routed_inside_only() {
    isolated("ranges", |world| async move {
        let api = Api::new();
        let pods = cluster(&world, &api).await;
        let error = connect(&namespace(&pods[0]), address([8, 8, 8, 8], 443)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
        assert_eq!(world.leaked(), 0);
        let host = world.host.run_blocking(|| ip(&["route", "get", "10.96.0.5"])).unwrap();
        assert!(host.contains("dev uplink"), "the machine knows no better route: {host}");
    });
}
