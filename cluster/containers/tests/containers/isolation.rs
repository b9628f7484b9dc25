//! What a container sees and may do: files, user, capabilities, system calls, namespaces.

use std::fs;
use std::path::Path;

use cluster_containers::{
    ContainerSpec, ContainerState, Error, Mount, MountKind, SandboxSpec, Seccomp, User,
};

use crate::lifecycle::{bind, words};
use crate::support::{Network, Node, SECONDS_MAX, printed};

#[tokio::test]
async fn arguments_environment_and_directory_arrive() {
    let node = Node::start().await;
    let mut spec = node.spec("print a b -- env -- cwd");
    spec.env = vec![("MINE".into(), "x=y".into()), ("FROM".into(), "pod".into())];
    spec.cwd = Some("/made/here".into());
    let (_, text) = node.run(spec).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "a b");
    for expected in ["MINE=x=y", "FROM=pod", "HOSTNAME=web-0", "HOME=/root", "/made/here"] {
        assert!(lines.contains(&expected), "{expected} in {text}");
    }
    assert!(!text.contains("TERM="));
    assert_eq!(lines.len(), 1 + 5 + 1, "nothing of the host's environment: {text}");
}

#[tokio::test]
async fn users_come_from_the_pod_or_the_image() {
    let node = Node::start().await;
    let ids = |text: &str| {
        let line = |key: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(key))
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        (line("Uid:"), line("Gid:"), line("Groups:"))
    };
    let mut spec = node.spec("cat /proc/self/status");
    spec.user = User { uid: Some(1000), gid: None, supplemental: vec![2000] };
    let (_, text) = node.run(spec).await;
    assert_eq!(ids(&text), ("1000 1000 1000 1000".into(), "1001 1001 1001 1001".into(), "1002 2000".into()));
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
    let mut spec = node.spec("cat /proc/self/status -- write /proc/self/oom_score_adj -- write /dev/stdout");
    spec.user = User { uid: Some(1337), gid: Some(1338), supplemental: vec![] };
    spec.no_new_privileges = true;
    let (_, text) = node.run(spec).await;
    assert_eq!(ids(&text), ("1337 1337 1337 1337".into(), "1338 1338 1338 1338".into(), String::new()));
    assert!(text.contains("NoNewPrivs:\t1"));
    assert!(text.contains("data/dev/stdout: done"), "its own output may be opened again: {text}");
}

#[tokio::test]
async fn capabilities_and_system_calls_are_limited() {
    let node = Node::start().await;
    let line = |text: &str, key: &str| {
        text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    let (_, text) = node.run_words("cat /proc/self/status -- unshare").await;
    assert_eq!(line(&text, "CapEff:"), "00000000a80425fb", "the usual fourteen");
    assert_eq!(line(&text, "CapBnd:"), "00000000a80425fb");
    assert_eq!(line(&text, "Seccomp:"), "0");
    assert!(text.contains("unshare: Operation not permitted"));

    let mut spec = node.spec("cat /proc/self/status -- unshare");
    (spec.caps_drop, spec.caps_add) = (vec!["ALL".into()], vec!["SYS_ADMIN".into()]);
    let (_, text) = node.run(spec).await;
    assert_eq!(line(&text, "CapEff:"), "0000000000200000");
    assert!(text.contains("unshare: done"));

    // The filter answers before capabilities are asked: the call that just worked is denied to a holder of another capability.
    let mut spec = node.spec("cat /proc/self/status -- unshare -- spawn 2");
    (spec.caps_drop, spec.seccomp) = (vec!["ALL".into()], Seccomp::RuntimeDefault);
    spec.user.uid = Some(1000);
    spec.no_new_privileges = true;
    let (exit, text) = node.run(spec).await;
    assert_eq!(
        (exit.code, line(&text, "Seccomp:"), line(&text, "Seccomp_filters:")),
        (0, "2".into(), "2".into())
    );
    assert!(text.contains("unshare: Operation not permitted"));
    assert_eq!(line(&text, "CapBnd:"), "0000000000000000");

    // A filter without no_new_privs, and threads and children under it.
    let mut spec = node.spec("cat /proc/self/status -- keyctl -- spawn 2");
    spec.seccomp = Seccomp::RuntimeDefault;
    let (exit, text) = node.run(spec).await;
    assert_eq!((exit.code, line(&text, "Seccomp:"), line(&text, "NoNewPrivs:")), (0, "2".into(), "0".into()));
    assert!(text.contains("keyctl: Operation not permitted"), "{text}");
    let (_, text) = node.run_words("keyctl").await;
    assert!(text.contains("keyctl: done"), "without the filter it works: {text}");
}

#[tokio::test]
async fn files_are_the_images_with_the_pods_mounts() {
    let node = Node::start().await;
    let host = node.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "from the host").unwrap();
    let mut spec = node.spec(
        "cat /in/file -- write /in/new -- write /ro/new -- cat /etc/one -- write /top -- write /scratch/x -- list /dev",
    );
    spec.mounts = vec![
        bind(&host, "/in", false),
        bind(&host, "/ro", true),
        bind(&host.join("file"), "/etc/one", true),
        Mount {
            kind: MountKind::Tmpfs,
            host_path: "".into(),
            container_path: "/scratch".into(),
            readonly: false,
            options: vec!["size=64k".into()],
        },
    ];
    spec.readonly_rootfs = true;
    let (_, text) = node.run(spec).await;
    for expected in [
        "from the host/in/new: done",
        "/ro/new: Read-only file system",
        "from the host/top: Read-only file system",
        "/scratch/x: done",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let mut devices: Vec<_> = text.lines().skip_while(|l| !l.contains("scratch")).skip(1).collect();
    devices.sort_unstable();
    assert_eq!(
        devices,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero"
        ]
    );
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "data");

    // Writes go to a layer of their own, and every container starts from the image again.
    let (_, text) = node.run_words("write /etc/passwd -- cat /etc/passwd").await;
    assert!(text.contains("/etc/passwd: done\ndata"));
    let (_, text) = node.run_words("cat /etc/passwd").await;
    assert!(text.contains("web:x:1000"));
}

#[tokio::test]
async fn the_machine_is_hidden() {
    let node = Node::start().await;
    let (_, text) = node
        .run_words(
            "write /proc/sys/kernel/hostname -- cat /proc/keys -- list /sys/firmware -- \
             write /sys/fs/cgroup/x -- write /sys/x -- mknod /disk -- open /disk -- cat /proc/1/cmdline",
        )
        .await;
    for expected in [
        "/proc/sys/kernel/hostname: Read-only file system",
        "/sys/fs/cgroup/x: Read-only file system",
        "/sys/x: Read-only file system",
        "/disk: done\n/disk: Operation not permitted",
        "/probe",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("keyring"));
    let mounts = node.run_words("cat /proc/self/mountinfo").await.1;
    let mounts: Vec<_> = mounts.lines().map(|l| l.split(' ').nth(4).unwrap().to_owned()).collect();
    let own = ["/", "/proc", "/dev", "/sys"];
    assert!(
        mounts.iter().all(|m| own.iter().any(|o| m == o || (*o != "/" && m.starts_with(o)))),
        "{mounts:?}"
    );
    let (_, text) =
        node.run_words("list /sys/fs/cgroup -- cat /sys/fs/cgroup/memory/memory.limit_in_bytes").await;
    assert!(text.contains("memory") && text.contains("pids"), "{text}");
}

#[tokio::test]
async fn namespaces_are_the_pods() {
    let net = Network::make();
    let sysctl = ("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned());
    let spec = SandboxSpec { net_ns: net.path.clone(), sysctls: [sysctl].into(), ..SandboxSpec::default() };
    let node = Node::with(spec).await;
    let words = "link /proc/self/ns/net -- link /proc/self/ns/ipc -- link /proc/self/ns/uts -- link /proc/self/ns/pid -- \
                 link /proc/self/ns/mnt -- cat /proc/sys/kernel/hostname -- list /sys/class/net -- \
                 cat /proc/sys/net/ipv4/ip_unprivileged_port_start -- write /dev/shm/shared";
    let (first, second) = (node.run_words(words).await.1, node.run_words(words).await.1);
    let (first, second): (Vec<_>, Vec<_>) = (first.lines().collect(), second.lines().collect());
    assert_eq!(first[..3], second[..3], "net, ipc and uts are shared");
    assert_eq!(first[5..8], ["web-0", "lo", "80"]);
    for (kind, inside) in ["net", "ipc", "uts", "pid", "mnt"].iter().zip(&first) {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(Path::new(inside), host, "{kind}");
    }
    let (_, text) = node.run_words("cat /dev/shm/shared").await;
    assert_eq!(text, "data\n", "/dev/shm is the pod's");

    let other = SandboxSpec {
        uid: "other".into(),
        sysctls: [("kernel.panic".into(), "1".into())].into(),
        ..SandboxSpec::default()
    };
    let error = node.runtime.create_sandbox(other).await.unwrap_err();
    assert_eq!(error.to_string(), "sysctl \"kernel.panic\" does not belong to a pod");
    assert_eq!(node.runtime.list_sandboxes().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_start_at_once_each_in_its_network() {
    const PODS: usize = 12;
    let node = Node::start().await;
    let run = |n: usize| {
        let (node, net) = (&node, Network::make());
        async move {
            let uid = format!("pod-{n}");
            let spec = SandboxSpec {
                uid: uid.clone(),
                net_ns: net.path.clone(),
                hostname: uid.clone(),
                ..SandboxSpec::default()
            };
            node.runtime.create_sandbox(spec).await.unwrap();
            let words = "link /proc/self/ns/net -- cat /proc/sys/kernel/hostname -- print up -- wait-for SIGTERM -- exit 5";
            let spec = ContainerSpec { pod_uid: uid.clone(), ..node.spec(words) };
            let path = spec.log_path.clone();
            let id = node.launch(spec).await;
            node.logged(&path, "waiting").await;
            let inside = node
                .runtime
                .exec_sync(&id, crate::lifecycle::words("/probe link /proc/self/ns/net"), SECONDS_MAX)
                .await
                .unwrap();
            node.runtime.stop_container(&id, libc::SIGTERM, SECONDS_MAX).await.unwrap();
            assert_eq!(node.ended(&id).await.code, 5);
            node.runtime.remove_sandbox(&uid).await.unwrap();
            let text = printed(&path);
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            assert_eq!(lines[1..4], [uid.as_str(), "up", "waiting for SIGTERM"]);
            assert_eq!(
                String::from_utf8(inside.stdout).unwrap().trim_end(),
                lines[0],
                "exec is in the pod's network"
            );
            lines[0].clone()
        }
    };
    let mut networks = futures::future::join_all((0..PODS).map(run)).await;
    networks.sort();
    networks.dedup();
    assert_eq!(networks.len(), PODS);
}

#[tokio::test]
async fn a_pid_namespace_can_be_shared() {
    let node = Node::with(SandboxSpec { share_pid: true, ..SandboxSpec::default() }).await;
    let spec = node.spec("wait-for SIGTERM");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    let (_, text) = node.run_words("list /proc -- cat /proc/1/cmdline").await;
    let numbers = text.lines().filter(|line| line.parse::<u32>().is_ok()).count();
    assert!(numbers >= 3, "the pod's first process, the other container, and itself: {text}");
    assert!(text.contains("sandbox"), "{text}");
    node.runtime.stop_container(&id, libc::SIGTERM, SECONDS_MAX).await.unwrap();
}

#[tokio::test]
async fn a_privileged_container_may_do_what_the_node_may() {
    let node = Node::start().await;
    let mut spec = node.spec(
        "unshare -- cat /proc/self/status -- open /dev/kmsg -- write /sys/fs/cgroup/pids/x/cgroup.procs",
    );
    spec.privileged = true;
    spec.seccomp = Seccomp::RuntimeDefault;
    let (_, text) = node.run(spec).await;
    assert!(text.contains("unshare: done") && text.contains("Seccomp:\t0"), "{text}");
    assert!(text.contains("/dev/kmsg: done"), "{text}");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = |text: &str| text.lines().find(|l| l.starts_with("CapBnd")).unwrap().to_owned();
    assert_eq!(bounding(&text), bounding(&own));
}

#[tokio::test]
async fn the_files_of_the_helper_cannot_be_reached() {
    let node = Node::start().await;
    // What a program started by exec could reach of the host's helper binary (CVE-2019-5736).
    let mut spec = node.spec("ignore SIGTERM");
    spec.caps_add = vec!["ALL".into()];
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "ignoring").await;
    // At that moment the name still means the helper, so it is the helper's program that runs inside.
    let ran = node
        .runtime
        .exec_sync(&id, words("/proc/self/exe read-only /proc/self/exe -- read-only /probe"), SECONDS_MAX)
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        "/proc/self/exe read-only true\n/probe read-only false\n"
    );
}

#[tokio::test]
async fn contradictions_are_refused_before_anything_is_made() {
    let node = Node::start().await;
    let mut spec = node.spec("");
    spec.caps_add = vec!["FLY".into()];
    let error = node.runtime.create_container(spec).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.to_string().as_str()),
        ("CreateContainerConfigError", "unknown capability \"FLY\"")
    );
    let spec = ContainerSpec {
        devices: vec![cluster_containers::Device {
            host_path: "/etc/passwd".into(),
            container_path: "/dev/x".into(),
            permissions: String::new(),
        }],
        ..node.spec("")
    };
    assert!(matches!(node.runtime.create_container(spec).await, Err(Error::Invalid(_))));
    assert!(node.runtime.list_containers().await.is_empty());
    let uid = "../../etc".to_owned();
    let bad = node.runtime.create_sandbox(SandboxSpec { uid, ..SandboxSpec::default() }).await.unwrap_err();
    assert!(matches!(bad, Error::Invalid(_)));
}

#[tokio::test]
async fn symbolic_links_of_an_image_lead_nowhere_else() {
    use crate::support::{Item, archive, layer, oci};
    let node = Node::start().await;
    let probe = fs::read(crate::support::PROBE).unwrap();
    let outside = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap();
    let layer = layer(&[
        Item::File("probe", 0o755, &probe),
        Item::Symlink("data", target),
        Item::Symlink("etc", "../../../../../../run"),
    ]);
    node.load(&archive(&oci("mesh.test/links:1", &[layer], &serde_json::json!({"Entrypoint": ["/probe"]}))))
        .await;
    let host = node.dir.path().join("h");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("seen"), "yes").unwrap();
    let mut spec = node.spec("cat /data/in/seen -- cat /etc/hosts");
    spec.image = "mesh.test/links:1".into();
    spec.mounts = vec![bind(&host, "/data/in", true), bind(&host.join("seen"), "/etc/hosts", true)];
    let path = spec.log_path.clone();
    let (exit, text) = node.run(spec).await;
    assert_eq!((exit.code, text.as_str()), (0, "yesyes\n"), "{}", printed(&path));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    assert!(matches!(node.runtime.list_containers().await[0].state, ContainerState::Exited(_)));
}
