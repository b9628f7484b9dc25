//! From creation to removal, across restarts of the runtime.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use cluster_containers::{ContainerEventKind, ContainerSpec, ContainerState, Error, SandboxSpec};

use crate::support::{IMAGE, Node, SECONDS_MAX, printed, wait_for};

#[tokio::test]
async fn a_container_runs_its_images_command_and_its_exit_is_known() {
    let node = Node::start().await;
    let mut events = node.runtime.events();
    let spec = node.spec("");
    let path = spec.log_path.clone();
    let id = node.runtime.create_container(spec.clone()).await.unwrap();
    assert_eq!(node.runtime.create_container(spec).await.unwrap(), id, "asking twice makes one");
    let status = node.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.image.as_str()), (ContainerState::Created, IMAGE));
    assert!(status.image_id.starts_with("sha256:"));
    node.runtime.start_container(&id).await.unwrap();
    let exit = node.ended(&id).await;
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (0, None, "Completed"));
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    assert_eq!(printed(&path), "hello\n");
    assert_eq!(events.recv().await.unwrap().kind, ContainerEventKind::Started);
    let last = events.recv().await.unwrap();
    assert_eq!(
        (last.id, last.pod_uid.as_str(), last.kind),
        (id.clone(), "pod", ContainerEventKind::Exited(exit))
    );
    let again = node.runtime.start_container(&id).await.unwrap_err();
    assert!(matches!(again, Error::WrongState { .. }), "{again}");
    node.runtime.remove_container(&id).await.unwrap();
    node.runtime.remove_container(&id).await.unwrap();
    assert!(matches!(node.runtime.container_status(&id).await, Err(Error::NoContainer(_))));
    assert!(path.exists(), "the log stays");
}

#[tokio::test]
async fn codes_and_signals_are_reported() {
    let node = Node::start().await;
    let (exit, _) = node.run_words("exit 7").await;
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (7, None, "Error"));
    let spec = node.spec("wait-for SIGTERM");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    let ContainerState::Running { pid, .. } = node.runtime.container_status(&id).await.unwrap().state else {
        panic!("it does not run")
    };
    assert!(
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("container-probe") || pid > 0
    );
    node.runtime.signal_container(&id, libc::SIGKILL).await.unwrap();
    let exit = node.ended(&id).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
}

#[tokio::test]
async fn stopping_asks_first_and_kills_after_the_grace() {
    let node = Node::start().await;
    let spec = node.spec("wait-for SIGTERM -- exit 3");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    node.runtime.stop_container(&id, libc::SIGTERM, SECONDS_MAX).await.unwrap();
    assert_eq!(node.ended(&id).await.code, 3);
    assert_eq!(printed(&path), "waiting for SIGTERM\ngot SIGTERM\n", "all output is in the log");

    let spec = node.spec("ignore SIGTERM");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "ignoring").await;
    let start = Instant::now();
    node.runtime.stop_container(&id, libc::SIGTERM, Duration::from_millis(300)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(node.ended(&id).await.signal, Some(9));
    node.runtime.stop_container(&id, libc::SIGTERM, SECONDS_MAX).await.unwrap();
}

#[tokio::test]
async fn containers_outlive_the_runtime() {
    let mut node = Node::start().await;
    let go = node.dir.path().join("go");
    fs::create_dir(&go).unwrap();
    let mut spec = node.spec("tick -- exit 4");
    spec.mounts.push(bind(&go, "/go", true));
    spec.labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    fs::write(go.join("0"), "").unwrap();
    node.logged(&path, "tick 0").await;
    let before = node.runtime.container_status(&id).await.unwrap();

    node.reopen().await;
    let after = node.runtime.container_status(&id).await.unwrap();
    assert_eq!(after, before);
    fs::write(go.join("1"), "").unwrap();
    node.logged(&path, "tick 1").await;
    let mut events = node.runtime.events();
    let result = node.runtime.exec_sync(&id, words("/probe print inside"), SECONDS_MAX).await.unwrap();
    assert_eq!(result.stdout, b"inside\n");
    fs::write(go.join("end"), "").unwrap();
    let event = tokio::time::timeout(SECONDS_MAX, events.recv()).await.unwrap().unwrap();
    assert!(matches!(event.kind, ContainerEventKind::Exited(exit) if exit.code == 4));

    node.reopen().await;
    let status = node.runtime.container_status(&id).await.unwrap();
    assert_eq!(status.state.exit().unwrap().code, 4);
    assert_eq!(status.labels["a"], "b");
    assert_eq!(printed(&path), "tick 0\ntick 1\n");
}

#[tokio::test]
async fn an_exit_while_nobody_watched_is_found_later() {
    let mut node = Node::start().await;
    let spec = node.spec("wait-for SIGTERM -- exit 6");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    let ContainerState::Running { pid, .. } = node.runtime.container_status(&id).await.unwrap().state else {
        panic!("it does not run")
    };
    // A runtime that knows nothing of this pod replaces the watching one meanwhile.
    let config = node.config.clone();
    let mut other = config.clone();
    other.cgroup_parent = format!("{}-other", config.cgroup_parent);
    node.runtime = cluster_containers::Runtime::open(other).await.unwrap();
    assert!(node.runtime.list_containers().await.is_empty(), "another owner's containers are not shown");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let file = config.run_dir.join("containers").join(id.as_str()).join("exit.json");
    wait_for("the exit status on disk", || file.exists()).await;
    node.reopen().await;
    let status = node.runtime.container_status(&id).await.unwrap();
    assert_eq!(status.state.exit().unwrap().code, 6);
}

#[tokio::test]
async fn a_killed_helper_takes_its_container_along() {
    let node = Node::start().await;
    let spec = node.spec("wait-for SIGTERM");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    let ContainerState::Running { pid, .. } = node.runtime.container_status(&id).await.unwrap().state else {
        panic!("it does not run")
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent: i32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL).unwrap();
    let exit = node.ended(&id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "ContainerStatusUnknown"));
    let process = format!("/proc/{pid}");
    wait_for("the container's end", || {
        fs::read_to_string(format!("{process}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let node = Node::start().await;
    let with = |change: fn(&mut ContainerSpec)| {
        let mut spec = node.spec("");
        change(&mut spec);
        spec
    };
    let cases = [
        (with(|s| s.command = words("nothing")), "exec: \"nothing\": executable file not found in $PATH"),
        (
            with(|s| s.command = words("/nothing")),
            "exec: \"/nothing\": stat /nothing: no such file or directory",
        ),
        (with(|s| s.command = words("/data")), "exec: \"/data\": permission denied"),
        (with(|s| s.command = words("/tmp")), "exec: \"/tmp\": is a directory"),
        (with(|s| s.cwd = Some("/data".into())), "cannot make the working directory /data"),
        (
            with(|s| s.mounts.push(bind("/does/not/exist".as_ref(), "/x", false))),
            "cannot mount /does/not/exist at /x",
        ),
    ];
    for (spec, expected) in cases {
        let id = node.runtime.create_container(spec).await.unwrap();
        let error = node.runtime.start_container(&id).await.unwrap_err();
        assert_eq!(error.reason(), "RunContainerError");
        assert!(error.to_string().contains(expected), "{error}");
        let status = node.runtime.container_status(&id).await.unwrap();
        let exit = status.state.exit().unwrap();
        assert_eq!((exit.code, exit.reason.as_str()), (128, "StartError"));
        assert!(exit.message.contains(expected));
    }
    let id = node.runtime.create_container(node.spec("")).await.unwrap();
    fs::remove_dir(format!("/sys/fs/cgroup/pids/{}/podpod/{id}", node.config.cgroup_parent)).unwrap();
    let error = node.runtime.start_container(&id).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot join /sys/fs/cgroup/pids/"), "{error}");
    let mut spec = node.spec("");
    spec.image = "mesh.test/none".into();
    let error = node.runtime.create_container(spec).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImagePull");
    assert!(error.to_string().contains("meshctl image load"), "{error}");
    let spec = ContainerSpec { pod_uid: "other".into(), ..node.spec("") };
    assert!(matches!(node.runtime.create_container(spec).await, Err(Error::NoSandbox(_))));
}

#[tokio::test]
async fn an_interrupted_creation_leaves_nothing() {
    let mut node = Node::start().await;
    let id = node.runtime.create_container(node.spec("")).await.unwrap();
    let dir = node.config.run_dir.join("containers").join(id.as_str());
    fs::remove_file(dir.join("shim.json")).unwrap();
    node.reopen().await;
    assert!(node.runtime.list_containers().await.is_empty());
    assert!(!dir.exists());
    assert!(!node.config.data_dir.join("snapshots").join(id.as_str()).exists());
}

#[tokio::test]
async fn a_restart_of_the_machine_is_noticed() {
    let mut node = Node::start().await;
    let spec = node.spec("wait-for SIGTERM");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    node.runtime.stop_container(&id, libc::SIGTERM, SECONDS_MAX).await.unwrap();
    // What a restart does: the mounts are gone, the files are not. And a run directory that was emptied leaves layers without an owner.
    let sandbox = node.config.run_dir.join("sandboxes/pod");
    for name in ["uts", "ipc", "shm"] {
        nix::mount::umount2(&sandbox.join(name), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    let orphan = node.config.data_dir.join("snapshots/abc/upper");
    fs::create_dir_all(&orphan).unwrap();
    node.runtime.remove_container(&id).await.unwrap();
    node.reopen().await;
    assert!(node.runtime.list_sandboxes().await.unwrap().is_empty());
    assert!(!sandbox.exists() && !orphan.exists());
    node.runtime.create_sandbox(SandboxSpec { uid: "pod".into(), ..SandboxSpec::default() }).await.unwrap();
    assert_eq!(node.run_words("exit 3").await.0.code, 3);
}

#[tokio::test]
async fn removing_a_sandbox_removes_everything_in_it() {
    let node = Node::with(SandboxSpec { share_pid: true, ..SandboxSpec::default() }).await;
    let spec = node.spec("orphan ignore SIGTERM -- wait-for SIGTERM");
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "ignoring").await;
    node.logged(&path, "waiting").await;
    let ContainerState::Running { pid, .. } = node.runtime.container_status(&id).await.unwrap().state else {
        panic!("it does not run")
    };
    let inside = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        !inside.contains("NSpid:\t1\n") && inside.contains("NSpid:"),
        "it is not the first process of its namespace"
    );
    node.runtime.remove_sandbox("pod").await.unwrap();
    node.runtime.remove_sandbox("pod").await.unwrap();
    assert!(node.runtime.list_containers().await.is_empty());
    assert!(!node.config.run_dir.join("sandboxes/pod").exists());
    assert_eq!(fs::read_dir(node.config.data_dir.join("snapshots")).unwrap().count(), 0);
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn bind(host: &std::path::Path, container: &str, readonly: bool) -> cluster_containers::Mount {
    cluster_containers::Mount {
        kind: cluster_containers::MountKind::Bind,
        host_path: host.to_owned(),
        container_path: container.into(),
        readonly,
        options: Vec::new(),
    }
}
