//! Pods reach each other, keep their networks over a restart, and leave nothing behind.

use std::time::Instant;

use cluster_network::Fabric;

use crate::world::{address, connect, exists, greeter, greeting, ip, isolated, namespace, request};

#[test]
fn pods_reach_each_other_and_their_nodes() {
    isolated("reach", |world| async move {
        let (a, b) = (world.pod(1, "a", None).await, world.pod(1, "b", None).await);
        let c = world.pod(2, "c", None).await;
        assert_eq!(
            (a.ip.octets(), b.ip.octets(), c.ip.octets()),
            ([10, 244, 1, 2], [10, 244, 1, 3], [10, 244, 2, 2])
        );
        for pod in [&a, &b, &c] {
            greeter(&namespace(pod), 8080, "pod").await;
        }
        greeter(&world.fabric.namespace().unwrap(), 6443, "api").await;
        let fabric = world.fabric.namespace().unwrap();
        for from in [namespace(&a), namespace(&c), world.node(1), world.node(2), fabric] {
            for to in [&a, &b, &c] {
                assert_eq!(greeting(&from, address(to.ip, 8080)).await.unwrap(), "pod");
            }
            assert_eq!(greeting(&from, address(world.fabric.address(), 6443)).await.unwrap(), "api");
        }
        let free = connect(&namespace(&a), address([10, 244, 2, 99], 80)).await.unwrap_err();
        assert_eq!(free.kind(), std::io::ErrorKind::HostUnreachable, "an address without pod: {free}");
    });
}

#[test]
fn a_pod_keeps_its_network_over_a_restart() {
    isolated("restart", |world| async move {
        let before = world.pod(1, "a", None).await;
        greeter(&namespace(&before), 8080, "still here").await;
        let config = cluster_network::FabricConfig {
            name: world.name.clone(),
            run_dir: world.run_dir.clone(),
            nodes: 2,
        };
        Fabric::ensure(&config).unwrap();
        let pods = world.pods(1);
        assert_eq!(pods.existing(), std::slice::from_ref(&before));
        assert_eq!(pods.setup(request("a", None)).await.unwrap(), before);
        assert_eq!(greeting(&world.node(2), address(before.ip, 8080)).await.unwrap(), "still here");
        assert_eq!(pods.setup(request("b", None)).await.unwrap().ip.octets(), [10, 244, 1, 3]);
    });
}

#[test]
fn a_half_made_pod_is_made_again() {
    isolated("half", |world| async move {
        let pods = world.pods(1);
        let first = pods.setup(request("a", None)).await.unwrap();
        // As after a crash between two steps: the link is gone, everything else is there.
        namespace(&first).run_blocking(|| ip(&["link", "delete", "eth0"])).unwrap();
        let again = world.pods(1).setup(request("a", None)).await.unwrap();
        greeter(&namespace(&again), 8080, "made").await;
        assert_eq!(greeting(&world.node(2), address(again.ip, 8080)).await.unwrap(), "made");
    });
}

#[test]
fn teardown_leaves_nothing_and_is_repeatable() {
    isolated("teardown", |world| async move {
        let pods = world.pods(1);
        let links = |()| world.node(1).run_blocking(|| ip(&["-o", "link"])).unwrap();
        let before = links(());
        let pod = pods.setup(request("a", None)).await.unwrap();
        assert_ne!(links(()), before);
        for _ in 0..2 {
            pods.teardown("uid-a").await.unwrap();
            assert_eq!(links(()), before);
            assert!(!exists(&pod.net_ns) && !exists(pod.net_ns.parent().unwrap()));
            assert_eq!(pods.existing(), []);
        }
        pods.setup(request("b", None)).await.unwrap();
        for _ in 0..2 {
            Fabric::remove(&world.name, &world.run_dir).unwrap();
            for path in
                [world.fabric.net_ns(), &world.fabric.nodes()[0].net_ns, &world.fabric.nodes()[1].net_ns]
            {
                assert!(!exists(path), "{}", path.display());
            }
            assert!(!exists(&world.run_dir.join("addresses")));
            let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
            assert!(
                !mounts.contains(&world.name) && !mounts.contains(world.run_dir.to_str().unwrap()),
                "{mounts}"
            );
        }
    });
}

#[test]
fn a_pod_is_made_in_milliseconds() {
    isolated("fast", |world| async move {
        let pods = world.pods(1);
        let mut times = Vec::new();
        for number in 0..20 {
            let interception = (number % 2 == 0).then(cluster_network::Interception::default);
            let start = Instant::now();
            pods.setup(request(&format!("p{number}"), interception)).await.unwrap();
            times.push((start.elapsed(), number % 2 == 0));
        }
        for injected in [true, false] {
            let mut these: Vec<_> =
                times.iter().filter(|time| time.1 == injected).map(|time| time.0).collect();
            these.sort();
            println!("pod network, injected {injected}: median {:?}, slowest {:?}", these[5], these[9]);
            assert!(these[5].as_millis() < 200, "median {:?}", these[5]);
        }
    });
}

#[test]
fn a_uid_that_names_another_place_is_refused() {
    isolated("uid", |world| async move {
        for uid in ["", "..", "a/b", "../../etc"] {
            let mut bad = request("a", None);
            bad.uid = uid.into();
            world.pods(1).setup(bad).await.unwrap_err();
            world.pods(1).teardown(uid).await.unwrap_err();
        }
    });
}

#[test]
fn a_node_is_not_forgotten() {
    isolated("fewer", |world| async move {
        let config = |nodes| cluster_network::FabricConfig {
            name: world.name.clone(),
            run_dir: world.run_dir.clone(),
            nodes,
        };
        let error = Fabric::ensure(&config(1)).unwrap_err().to_string();
        assert!(error.contains("has 2 nodes"), "{error}");
        Fabric::ensure(&config(3)).unwrap();
        assert!(Fabric::ensure(&config(2)).is_err());
        Fabric::remove(&world.name, &world.run_dir).unwrap();
        Fabric::ensure(&config(1)).unwrap();
    });
}
