//! Nothing in the cluster reaches the machine's uplink, and the machine has no route into the cluster.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use cluster_network::{Fabric, FabricConfig, NetNs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::net::UdpSocket;

use crate::world::{SOON, World, address, connect, ip, isolated, namespace};

/// Public resolvers, the uplink's gateway, the machine's own address, a private range nobody has.
const OUTSIDE: [Ipv4Addr; 5] = [
    Ipv4Addr::new(8, 8, 8, 8),
    Ipv4Addr::new(1, 1, 1, 1),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(10, 0, 0, 1),
];

#[test]
fn nothing_reaches_the_uplink() {
    isolated("leak", |world| async move {
        let pod = world.pod(1, "a", None).await;
        let injected = world.pod(2, "b", Some(cluster_network::Interception::default())).await;
        let places = [
            ("pod", namespace(&pod)),
            ("node", world.node(1)),
            ("other node", world.node(2)),
            ("fabric", world.fabric.namespace().unwrap()),
        ];
        for (place, from) in &places {
            for outside in OUTSIDE {
                let error = connect(from, address(outside, 53)).await.expect_err(place);
                let told = matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable);
                assert!(told, "{place} to {outside}: {error:?}");
                datagram(from, outside).await;
            }
        }
        // The sidecar's redirection answers for the injected pod; its own user and datagrams are on their own.
        for outside in OUTSIDE {
            connect(&namespace(&injected), address(outside, 53)).await.unwrap_err();
            datagram(&namespace(&injected), outside).await;
        }
        assert_eq!(world.leaked(), 0, "packets left over the uplink");
    });
}

async fn datagram(from: &NetNs, to: Ipv4Addr) {
    let socket: UdpSocket = from.bind_udp(address(Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    // Refused at once, or by a message from the node that a second send sees.
    for _ in 0..2 {
        let _refused = tokio::time::timeout(SOON, socket.send_to(b"x", address(to, 53))).await.unwrap();
    }
}

#[test]
fn the_counter_sees_a_packet_that_leaves() {
    isolated("counter", |world| async move {
        assert_eq!(world.leaked(), 0);
        let _unanswered = tokio::time::timeout(SOON / 10, world.host.connect(address(OUTSIDE[0], 53))).await;
        assert!(world.leaked() > 0, "the test above could not fail");
    });
}

fn routes(of: &NetNs) -> String {
    of.run_blocking(|| ip(&["-4", "route", "show", "table", "all"])).unwrap()
}

#[test]
fn no_namespace_has_a_way_out_and_the_host_has_no_way_in() {
    isolated("routes", |world: World| async move {
        let before = routes(&world.host);
        let pod = world.pod(1, "a", None).await;
        for place in [world.node(1), world.node(2), world.fabric.namespace().unwrap()] {
            let routes = routes(&place);
            assert!(!routes.contains("default"), "{routes}");
            assert!(!routes.contains("192.0.2."), "{routes}");
        }
        // A pod's default route ends at its node, so that a sidecar can capture calls to any address.
        let of_pod = routes(&namespace(&pod));
        let defaults: Vec<_> = of_pod.lines().filter(|line| line.starts_with("default")).collect();
        assert_eq!(defaults.len(), 1, "{of_pod}");
        assert!(defaults[0].starts_with("default via 10.244.1.1 dev eth0"), "{of_pod}");
        let host = routes(&world.host);
        assert_eq!(host, before, "the machine's own routes are as they were");
        for range in ["10.244.", "10.96.", "172.30."] {
            assert!(!host.contains(range), "{host}");
        }
        let links = world.host.run_blocking(|| ip(&["-o", "link"])).unwrap();
        assert_eq!(links.lines().count(), 2 + extra_links(&links), "only lo and the uplink: {links}");
    });
}

/// Devices this kernel puts into every new namespace.
fn extra_links(links: &str) -> usize {
    let known = ["ifb", "tunl0", "sit0", "ip6tnl0", "gre", "erspan"];
    links.lines().filter(|line| known.iter().any(|name| line.contains(&format!(": {name}")))).count()
}

#[test]
fn another_programs_namespaces_do_not_stand_in_the_way() {
    isolated("foreign", |world| async move {
        // As after a boot: nobody has made a namespace yet.
        mount(Some("test"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let name = format!("{}-2", world.name);
        let config = FabricConfig { name: name.clone(), run_dir: world.run_dir.join("2"), nodes: 1 };
        Fabric::ensure(&config).unwrap();
        ip(&["netns", "add", "other"]);
        Fabric::remove(&name, &config.run_dir).unwrap();
        let left: Vec<_> =
            fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["other"]);
        ip(&["netns", "exec", "other", "ip", "link"]);
        ip(&["netns", "delete", "other"]);
        // The last one takes the directory's own mount away.
        Fabric::ensure(&config).unwrap();
        Fabric::remove(&name, &config.run_dir).unwrap();
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(!mounts.contains("test /run/netns "), "{mounts}");
        umount2("/run", MntFlags::MNT_DETACH).unwrap();
    });
}
