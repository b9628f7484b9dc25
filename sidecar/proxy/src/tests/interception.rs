//! Connections that the kernel redirects, in a network namespace of the test's own. Needs root, `ip` and `nft`.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use sidecar_model::cluster::ClusterKind;
use sidecar_model::listener::{Direction, ListenerFilters};
use sidecar_model::{Address, Cluster, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::app::App;
use super::build::{chain, cluster, http_listener, listener, log, manager, route, routes, snapshot, tcp};
use super::rig::{Client, get, metrics, plain, sample, until};

/// Outbound connections go to the proxy, but for those it makes itself from 127.0.0.6.
const RULES: &str = "add table ip t
add chain ip t out { type nat hook output priority -100; }
add rule ip t out ip saddr 127.0.0.6 return
add rule ip t out ip daddr 10.1.0.0/16 tcp dport { 9080, 9000 } redirect to :15001
";

fn shell(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}

/// Runs a test in a namespace of its own: threads that it starts inherit it, and it ends with the last of them.
fn isolated(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces need root");
        shell("ip", &["link", "set", "lo", "up"]);
        shell("ip", &["address", "add", "10.1.0.1/32", "dev", "lo"]);
        let rules = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(rules.path(), RULES).unwrap();
        shell("nft", &["-f", rules.path().to_str().unwrap()]);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

fn passthrough() -> Cluster {
    let mut cluster = cluster("PassthroughCluster", &[]);
    cluster.kind = ClusterKind::OriginalDst { header: None, port_override: None };
    cluster.load_assignment = None;
    cluster.source_address = Some("127.0.0.6".parse().unwrap());
    cluster
}

/// The listener that all redirected connections reach first.
fn virtual_outbound() -> Listener {
    let filters = ListenerFilters { original_dst: true, ..ListenerFilters::default() };
    Listener {
        address: Address::Socket("0.0.0.0:15001".parse().unwrap()),
        use_original_dst: true,
        listener_filters: filters,
        ..listener("virtualOutbound", Direction::Outbound, vec![chain(tcp("PassthroughCluster"), None)])
    }
}

#[test]
fn redirected_connections_find_the_listener_of_their_destination() {
    isolated(async || {
        let logs = tempfile::tempdir().unwrap();
        let path = logs.path().join("log");
        let app = App::start("reviews").await;
        let mut by_port = manager(routes(vec![route("c")]), vec![]);
        by_port.access_log = vec![log(&path, "%DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_CLUSTER%")];
        let by_port = Listener {
            address: Address::Socket("0.0.0.0:9080".parse().unwrap()),
            bind_to_port: false,
            ..http_listener("0.0.0.0_9080", Direction::Outbound, by_port, None)
        };
        let clusters = vec![cluster("c", &[app.address]), passthrough()];
        let proxy = plain(snapshot(vec![virtual_outbound(), by_port], clusters));
        until("the listener", || proxy.bound().contains_key("virtualOutbound").then_some(())).await;
        let mut client = Client::connect("10.1.0.1:9080".parse().unwrap()).await;
        assert_eq!(client.text(get("/x")).await.1, "reviews /x ");
        until("log", || {
            (std::fs::read_to_string(&path).unwrap_or_default() == "10.1.0.1:9080 c\n").then_some(())
        })
        .await;

        let server = TcpListener::bind("10.1.0.1:9000").await.unwrap();
        let echo = tokio::spawn(async move {
            let (mut stream, peer) = server.accept().await.unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            peer.ip().to_string()
        });
        let mut stream = TcpStream::connect("10.1.0.1:9000").await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = Vec::new();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"hello");
        assert_eq!(echo.await.unwrap(), "127.0.0.6", "the proxy made the connection");
        let labels = ["destination_service=\"PassthroughCluster\""];
        until("metrics", || sample(&metrics(&proxy), "istio_tcp_connections_closed_total", &labels)).await;
        let mut straight = TcpStream::connect("127.0.0.1:15001").await.unwrap();
        let mut nothing = Vec::new();
        straight.read_to_end(&mut nothing).await.unwrap();
        assert!(
            nothing.is_empty(),
            "a connection to the proxy itself ends instead of going round in circles"
        );
    });
}
