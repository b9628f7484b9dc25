//! Exec and attach.

use std::time::{Duration, Instant};

use cluster_containers::{ContainerId, Error, ExecSession, ExecSpec, Seccomp, User};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::lifecycle::words;
use crate::support::{Node, SECONDS_MAX};

/// A container that waits for SIGTERM.
async fn idle(node: &Node) -> ContainerId {
    let mut spec = node.spec("wait-for SIGTERM");
    spec.user = User { uid: Some(1000), gid: Some(1001), supplemental: vec![] };
    spec.seccomp = Seccomp::RuntimeDefault;
    spec.no_new_privileges = true;
    spec.env = vec![("MINE".into(), "1".into())];
    spec.cwd = Some("/tmp".into());
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "waiting").await;
    id
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut all = Vec::new();
    let deadline = tokio::time::Instant::now() + SECONDS_MAX;
    while !String::from_utf8_lossy(&all).contains(text) {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout_at(deadline, stream.read(&mut chunk)).await;
        let count =
            read.unwrap_or_else(|_| panic!("no {text:?} in {:?}", String::from_utf8_lossy(&all))).unwrap();
        assert!(count > 0, "end of file before {text:?} in {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_command_has_the_containers_surroundings() {
    let node = Node::start().await;
    let id = idle(&node).await;
    let argv = words(
        "/probe env -- cwd -- cat /proc/self/status -- cat /proc/self/cgroup -- unshare -- complain oops -- exit 9",
    );
    let result = node.runtime.exec_sync(&id, argv, SECONDS_MAX).await.unwrap();
    let text = String::from_utf8(result.stdout).unwrap();
    assert_eq!((result.code, result.stderr.as_slice()), (9, &b"oops\n"[..]), "{text}");
    for expected in [
        "MINE=1",
        "\n/tmp\n",
        "Uid:\t1000",
        "Gid:\t1001",
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "unshare: Operation not permitted",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert!(text.contains(&format!("memory:/{}/podpod/{id}", node.config.cgroup_parent)), "{text}");
    let result = node.runtime.exec_sync(&id, words("probe"), SECONDS_MAX).await;
    assert!(
        matches!(&result, Err(Error::Start(why)) if why == "exec: \"probe\": executable file not found in $PATH"),
        "{result:?}"
    );
    let result = node.runtime.exec_sync(&id, vec![], SECONDS_MAX).await;
    assert!(matches!(result, Err(Error::Start(_))));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed() {
    let node = Node::start().await;
    let id = idle(&node).await;
    let start = Instant::now();
    let result =
        node.runtime.exec_sync(&id, words("/probe ignore SIGTERM"), Duration::from_millis(300)).await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let pids = || async { node.runtime.stats(&id).await.unwrap().pids };
    let deadline = Instant::now() + SECONDS_MAX;
    while pids().await > 1 {
        assert!(Instant::now() < deadline, "the command still runs");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_daemon_left_behind_does_not_hold_a_command_up() {
    let node = Node::start().await;
    let id = idle(&node).await;
    let start = Instant::now();
    let result = node
        .runtime
        .exec_sync(&id, words("/probe orphan wait-for SIGTERM -- print x"), SECONDS_MAX)
        .await
        .unwrap();
    assert_eq!(result.code, 0);
    assert!(String::from_utf8(result.stdout).unwrap().contains('x'));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn input_and_output_flow_both_ways() {
    let node = Node::start().await;
    let id = idle(&node).await;
    let spec = ExecSpec {
        argv: words("/probe echo"),
        stdin: true,
        env: vec![("X".into(), "1".into())],
        ..ExecSpec::default()
    };
    let session = node.runtime.exec(&id, spec).await.unwrap();
    let ExecSession { stdin, stdout, stderr, exit, .. } = session;
    let (mut stdin, mut stdout, mut stderr) = (stdin.unwrap(), stdout.unwrap(), stderr.unwrap());
    stdin.write_all(b"hello\n").await.unwrap();
    assert_eq!(read_until(&mut stdout, "\n").await, "echo hello\n");
    assert_eq!(read_until(&mut stderr, "\n").await, "noted 5\n");
    drop(stdin);
    assert_eq!(read_until(&mut stdout, "input\n").await, "end of input\n");
    assert_eq!(exit.wait().await.unwrap(), 0);
    assert_eq!(stdout.read(&mut [0; 8]).await.unwrap(), 0, "end of file");
}

#[tokio::test]
async fn a_megabyte_passes_through_a_command() {
    let node = Node::start().await;
    let id = idle(&node).await;
    let result = node.runtime.exec_sync(&id, words("/probe long 1000000"), SECONDS_MAX).await.unwrap();
    assert_eq!((result.code, result.stdout.len()), (0, 1_000_001));
}

#[tokio::test]
async fn a_command_may_have_a_terminal() {
    let node = Node::start().await;
    let id = idle(&node).await;
    let spec = ExecSpec {
        argv: words("/probe size"),
        tty: true,
        stdin: true,
        size: Some((80, 24)),
        ..ExecSpec::default()
    };
    let mut session = node.runtime.exec(&id, spec).await.unwrap();
    assert!(session.stderr.is_none());
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    assert!(read_until(&mut stdout, "size").await.contains("terminal true size"));
    session.resize(132, 43).unwrap();
    stdin.write_all(b"\n").await.unwrap();
    read_until(&mut stdout, "132x43").await;
    stdin.write_all(b"q\n").await.unwrap();
    assert_eq!(session.wait().await.unwrap(), 5);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn only_running_containers_take_commands() {
    let node = Node::start().await;
    let id = node.runtime.create_container(node.spec("")).await.unwrap();
    let error = node.runtime.exec_sync(&id, words("/probe"), SECONDS_MAX).await.unwrap_err();
    assert_eq!(error.to_string(), format!("container \"{id}\" is created, not running"));
    node.runtime.start_container(&id).await.unwrap();
    node.ended(&id).await;
    assert!(node.runtime.exec_sync(&id, words("/probe"), SECONDS_MAX).await.is_err());
    assert!(node.runtime.attach(&id).await.is_err());
}

#[tokio::test]
async fn attaching_shows_output_and_types_input() {
    let node = Node::start().await;
    let mut spec = node.spec("echo -- exit 2");
    (spec.stdin, spec.stdin_once) = (true, true);
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    let mut session = node.runtime.attach(&id).await.unwrap();
    let mut watcher = node.runtime.attach_output(&id).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    assert!(watcher.stdin.is_none());
    let mut seen = watcher.stdout.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    assert_eq!(read_until(&mut stdout, "\n").await, "echo typed\n");
    assert_eq!(read_until(&mut seen, "\n").await, "echo typed\n");
    drop(watcher);
    stdin.write_all(b"more\n").await.unwrap();
    read_until(&mut stdout, "more\n").await;
    drop(stdin);
    assert_eq!(session.wait().await.unwrap(), 2, "the end of the only input ends the container");
    assert_eq!(crate::support::printed(&path), "echo typed\nnoted 5\necho more\nnoted 4\nend of input\n");
}

#[tokio::test]
async fn a_container_may_have_a_terminal() {
    let node = Node::start().await;
    let mut spec = node.spec("size");
    (spec.tty, spec.stdin) = (true, true);
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "terminal true").await;
    let mut session = node.runtime.attach(&id).await.unwrap();
    session.resize(100, 30).unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"\n").await.unwrap();
    read_until(&mut stdout, "100x30").await;
    stdin.write_all(b"q\n").await.unwrap();
    assert_eq!(session.wait().await.unwrap(), 5);
}
