//! DNS as pods see it: asked by the machine's own resolver library, over UDP and TCP.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Instant;

use cluster_network::{DNS_ADDRESS, NetNs};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::Api;
use crate::world::{SOON, World, address, connect, isolated, namespace};

async fn world_with_dns(world: &World) -> (std::sync::Arc<Api>, NetNs) {
    let api = Api::new();
    let ports = json!([{"name": "web", "port": 80}]);
    api.put_service("web", json!({"clusterIP": "10.96.0.5", "ports": ports}));
    api.put_service("peers", json!({"clusterIP": "None", "ports": ports}));
    let many: Vec<_> = (0..100).map(|i| Ipv4Addr::new(10, 244, 1, 100 + i)).collect();
    api.put_endpoints("peers", 8080, &many);
    let catalog = api.catalog().await;
    for node in world.fabric.nodes() {
        let (node, catalog) = (node.clone(), catalog.clone());
        let (ready, bound) = tokio::sync::oneshot::channel();
        let ready = move || ready.send(()).unwrap();
        tokio::spawn(async move {
            cluster_network::run_dns(node, catalog, "cluster.local", ready).await.unwrap()
        });
        tokio::time::timeout(SOON, bound).await.unwrap().unwrap();
    }
    (api, namespace(&world.pod(2, "client", None).await))
}

fn question(name: &str, wanted: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), wanted));
    message.to_vec().unwrap()
}

async fn over_udp(from: &NetNs, name: &str, wanted: RecordType) -> Message {
    let socket = from.bind_udp(address(Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    socket.connect(address(DNS_ADDRESS, 53)).await.unwrap();
    socket.send(&question(name, wanted)).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(SOON, socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn over_tcp(from: &NetNs, name: &str, wanted: RecordType) -> Message {
    let mut stream = connect(from, address(DNS_ADDRESS, 53)).await.unwrap();
    let question = question(name, wanted);
    stream.write_u16(question.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[test]
fn pods_ask_their_node() {
    isolated("dns", |world| async move {
        let (_api, client) = world_with_dns(&world).await;
        for _ in 0..2 {
            let answer = over_udp(&client, "web.default.svc.cluster.local.", RecordType::A).await;
            assert_eq!(answer.answers[0].data.to_string(), "10.96.0.5");
            assert!(answer.metadata.authoritative && answer.metadata.id == 7);
        }
        let start = Instant::now();
        let outside = over_udp(&client, "example.com.", RecordType::A).await;
        assert_eq!(outside.metadata.response_code, ResponseCode::NXDomain);
        assert!(start.elapsed().as_millis() < 500, "told at once");
        assert_eq!(world.leaked(), 0);
    });
}

#[test]
fn what_does_not_fit_a_datagram_comes_over_a_connection() {
    isolated("dnstcp", |world| async move {
        let (_api, client) = world_with_dns(&world).await;
        let name = "peers.default.svc.cluster.local.";
        let cut = over_udp(&client, name, RecordType::A).await;
        assert!(cut.metadata.truncation && cut.answers.len() < 100);
        let whole = over_tcp(&client, name, RecordType::A).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 100);
        let first = |message: &Message| message.answers[0].data.to_string();
        assert_ne!(first(&whole), first(&over_tcp(&client, name, RecordType::A).await), "answers rotate");
    });
}

#[test]
fn the_machines_resolver_follows_changes() {
    isolated("resolver", |world| async move {
        let (api, client) = world_with_dns(&world).await;
        let directory = tempfile::tempdir().unwrap();
        let resolv = directory.path().join("resolv.conf");
        let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
        std::fs::write(&resolv, format!("nameserver {DNS_ADDRESS}\n{search}\noptions ndots:5\n")).unwrap();
        // As in a pod: this mount exists only in the test's own mount namespace.
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(&resolv), "/etc/resolv.conf", None::<&str>, flags, None::<&str>).unwrap();
        let resolve = async |name: &'static str| {
            client
                .run(move || {
                    let output = Command::new("getent").args(["ahostsv4", name]).output().unwrap();
                    String::from_utf8(output.stdout).unwrap().split_whitespace().next().map(str::to_owned)
                })
                .await
                .unwrap()
        };
        for name in ["web", "web.default", "web.default.svc.cluster.local"] {
            assert_eq!(resolve(name).await.as_deref(), Some("10.96.0.5"), "{name}");
        }
        assert_eq!(resolve("no-such-service").await, None);
        assert_eq!(resolve("example.com").await, None);
        api.put_service("web", json!({"clusterIP": "10.96.0.6", "ports": [{"name": "web", "port": 80}]}));
        let deadline = Instant::now() + SOON;
        while resolve("web").await.as_deref() != Some("10.96.0.6") {
            assert!(Instant::now() < deadline, "the change never arrived");
        }
    });
}
