//! What goes through a sidecar and what does not, seen by a stand-in that reports each connection's original destination.

use std::net::{Ipv4Addr, SocketAddr};

use cluster_network::{Interception, NetNs, PodNet};
use nix::unistd::{Uid, setfsuid};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::world::{SOON, World, address, connect, greeter, greeting, isolated, namespace, read};

const APP: u16 = 9080;

/// Listens where a sidecar does and tells every caller which port it arrived at, whom it wanted, and who it is.
async fn sidecar(pod: &PodNet) {
    for port in [15001, 15006] {
        let listener = namespace(pod).listen(address(Ipv4Addr::UNSPECIFIED, port)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, peer)) = listener.accept().await {
                let original = SockRef::from(&stream).original_dst_v4().unwrap().as_socket().unwrap();
                let report = format!("{port} {original} from {}", peer.ip());
                let _closed = stream.write_all(report.as_bytes()).await;
            }
        });
    }
}

/// Connects as the sidecar's user, from `source` if given.
async fn as_sidecar(from: &NetNs, source: Option<Ipv4Addr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = from
        .run(move || {
            setfsuid(Uid::from_raw(1337));
            TcpSocket::new_v4()
        })
        .await??;
    if let Some(source) = source {
        socket.bind(address(source, 0))?;
    }
    tokio::time::timeout(SOON, socket.connect(to)).await?
}

async fn pair(world: &World, interception: Interception) -> (PodNet, PodNet) {
    let injected = world.pod(1, "injected", Some(interception)).await;
    let plain = world.pod(2, "plain", None).await;
    greeter(&namespace(&injected), APP, "app").await;
    greeter(&namespace(&plain), APP, "plain").await;
    (injected, plain)
}

#[test]
fn calls_go_through_the_sidecar_with_their_original_destination() {
    isolated("capture", |world| async move {
        let (injected, plain) = pair(&world, Interception::default()).await;
        sidecar(&injected).await;
        let (inside, outside) = (namespace(&injected), namespace(&plain));
        for to in [address(plain.ip, APP), address([10, 96, 7, 7], 80), address([8, 8, 8, 8], 443)] {
            let report = greeting(&inside, to).await.unwrap();
            assert_eq!(report, format!("15001 {to} from {}", injected.ip));
        }
        for port in [APP, 1, 15007] {
            let to = address(injected.ip, port);
            let report = greeting(&outside, to).await.unwrap();
            assert_eq!(report, format!("15006 {to} from {}", plain.ip));
        }
    });
}

#[test]
fn the_sidecar_itself_is_exempt_and_loops_through_inbound() {
    isolated("exempt", |world| async move {
        let (injected, plain) = pair(&world, Interception::default()).await;
        sidecar(&injected).await;
        let inside = namespace(&injected);
        let far = as_sidecar(&inside, None, address(plain.ip, APP)).await.unwrap();
        assert_eq!(read(far).await.unwrap(), "plain");
        let own = address(injected.ip, APP);
        let looped = as_sidecar(&inside, None, own).await.unwrap();
        assert_eq!(read(looped).await.unwrap(), format!("15006 {own} from {}", injected.ip));
        let passed = as_sidecar(&inside, Some(Ipv4Addr::new(127, 0, 0, 6)), own).await.unwrap();
        assert_eq!(read(passed).await.unwrap(), "app");
        let local = as_sidecar(&inside, None, address(Ipv4Addr::LOCALHOST, APP)).await.unwrap();
        assert_eq!(read(local).await.unwrap(), "app");
    });
}

#[test]
fn an_application_reaches_itself_directly() {
    isolated("self", |world| async move {
        let (injected, _plain) = pair(&world, Interception::default()).await;
        sidecar(&injected).await;
        let inside = namespace(&injected);
        for ip in [Ipv4Addr::LOCALHOST, injected.ip] {
            assert_eq!(greeting(&inside, address(ip, APP)).await.unwrap(), "app");
        }
    });
}

#[test]
fn without_a_sidecar_nothing_passes() {
    isolated("closed", |world| async move {
        let (injected, plain) = pair(&world, Interception::default()).await;
        let refused = std::io::ErrorKind::ConnectionRefused;
        let inbound = connect(&namespace(&plain), address(injected.ip, APP)).await.unwrap_err();
        assert_eq!(inbound.kind(), refused);
        let outbound = connect(&namespace(&injected), address(plain.ip, APP)).await.unwrap_err();
        assert_eq!(outbound.kind(), refused);
    });
}

#[test]
fn the_sidecars_own_ports_and_exclusions_are_left_alone() {
    isolated("ports", |world| async move {
        let wanted = Interception {
            exclude_inbound_ports: [9081].into(),
            exclude_outbound_ports: [9082].into(),
            exclude_outbound_cidrs: vec!["10.244.2.2/32".parse().unwrap()],
            include_outbound_ports: [9083].into(),
            ..Interception::default()
        };
        let (injected, plain) = pair(&world, wanted).await;
        sidecar(&injected).await;
        let (inside, outside) = (namespace(&injected), namespace(&plain));
        for port in [15008, 15020, 15021, 15090, 9081] {
            greeter(&inside, port, "direct").await;
            assert_eq!(greeting(&outside, address(injected.ip, port)).await.unwrap(), "direct");
        }
        assert_eq!(plain.ip.octets(), [10, 244, 2, 2], "the excluded range is this pod");
        assert_eq!(greeting(&inside, address(plain.ip, APP)).await.unwrap(), "plain");
        let third = world.pod(2, "third", None).await;
        for (port, captured) in [(9082, false), (9083, true), (APP, true)] {
            greeter(&namespace(&third), port, "third").await;
            let heard = greeting(&inside, address(third.ip, port)).await.unwrap();
            assert_eq!(heard != "third", captured, "port {port}: {heard}");
        }
    });
}

#[test]
fn only_what_is_included_is_captured() {
    isolated("include", |world| async move {
        let wanted = Interception {
            include_inbound_ports: cluster_network::Ports::Only([9081].into()),
            include_outbound_cidrs: cluster_network::OutboundRanges::Only(vec![
                "10.96.0.0/16".parse().unwrap(),
            ]),
            ..Interception::default()
        };
        let (injected, plain) = pair(&world, wanted).await;
        sidecar(&injected).await;
        let (inside, outside) = (namespace(&injected), namespace(&plain));
        assert_eq!(greeting(&outside, address(injected.ip, APP)).await.unwrap(), "app");
        assert!(greeting(&outside, address(injected.ip, 9081)).await.unwrap().starts_with("15006 "));
        assert_eq!(greeting(&inside, address(plain.ip, APP)).await.unwrap(), "plain");
        assert!(greeting(&inside, address([10, 96, 0, 9], 80)).await.unwrap().starts_with("15001 "));
    });
}
