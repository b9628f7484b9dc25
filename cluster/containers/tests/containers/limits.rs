//! Limits the kernel enforces, usage it counts, and what becomes of output.

use std::fs;

use cluster_containers::{Resources, SandboxSpec};

use crate::support::{Node, printed};

#[tokio::test]
async fn memory_beyond_the_limit_is_an_oom_kill() {
    let node = Node::start().await;
    let mut spec = node.spec("eat 200");
    spec.resources.memory_limit = Some(32 << 20);
    let (exit, text) = node.run(spec).await;
    assert_eq!(
        (exit.code, exit.signal, exit.oom_killed, exit.reason.as_str()),
        (137, Some(9), true, "OOMKilled")
    );
    assert_eq!(text, "");
    let mut spec = node.spec("eat 4");
    spec.resources.memory_limit = Some(32 << 20);
    let (exit, text) = node.run(spec).await;
    assert_eq!((exit.code, exit.oom_killed, text.as_str()), (0, false, "ate 4\n"));
    let mut spec = node.spec("eat-in-child 200 -- exit 1");
    spec.resources.memory_limit = Some(32 << 20);
    let (exit, _) = node.run(spec).await;
    assert_eq!((exit.signal, exit.oom_killed), (None, true), "a child counts, too");
}

#[tokio::test]
async fn a_pod_limit_binds_its_containers_together() {
    let resources = Resources { memory_limit: Some(32 << 20), ..Resources::default() };
    let node = Node::with(SandboxSpec { resources, ..SandboxSpec::default() }).await;
    let (exit, _) = node.run_words("eat 200").await;
    assert!(exit.oom_killed, "{exit:?}");
}

#[tokio::test]
async fn tasks_and_cpu_are_limited() {
    let node = Node::start().await;
    let mut spec = node.spec("spawn 20");
    spec.resources.pids_limit = Some(5);
    let (_, text) = node.run(spec).await;
    assert!(text.contains("spawned 4: Resource temporarily unavailable"), "{text}");

    let mut spec = node.spec("burn 1000 -- print done -- wait-for SIGTERM");
    spec.resources.cpu_quota_us = Some(20_000);
    spec.resources.cpu_shares = Some(512);
    let path = spec.log_path.clone();
    let id = node.launch(spec).await;
    node.logged(&path, "done").await;
    let stats = node.runtime.stats(&id).await.unwrap();
    // A fifth of a CPU for a second; the first period is free, and bursts add a little.
    assert!((100_000_000..400_000_000).contains(&stats.cpu_usage_ns), "{stats:?}");
    assert_eq!(stats.pids, 1, "{stats:?}");
    assert!(stats.memory_rss_bytes > 0 && stats.memory_working_set_bytes > 0, "{stats:?}");
    assert!(stats.memory_usage_bytes >= stats.memory_working_set_bytes);
    let pod = node.runtime.sandbox_stats("pod").await.unwrap();
    assert!(pod.cpu_usage_ns >= stats.cpu_usage_ns);
    node.runtime.remove_container(&id).await.unwrap();
    assert!(node.runtime.stats(&id).await.is_err());
}

#[tokio::test]
async fn what_this_process_may_not_set_is_clamped() {
    let node = Node::start().await;
    let mut spec = node.spec("cat /proc/self/oom_score_adj -- cat /proc/self/limits");
    spec.resources.oom_score_adj = Some(-997);
    let (exit, text) = node.run(spec).await;
    assert_eq!(exit.code, 0, "{text}");
    let mut spec = node.spec("cat /proc/self/oom_score_adj");
    spec.resources.oom_score_adj = Some(500);
    assert_eq!(node.run(spec).await.1, "500\n");
}

#[tokio::test]
async fn logs_have_the_cri_form_and_survive_a_full_line() {
    let node = Node::start().await;
    let spec = node.spec("print one -- complain two -- long 40000 -- print end");
    let path = spec.log_path.clone();
    node.run(spec).await;
    let text = fs::read_to_string(&path).unwrap();
    let mut records = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.splitn(4, ' ').collect();
        let time: jiff::Timestamp = fields[0].parse().unwrap();
        assert!(
            time > jiff::Timestamp::from_second(1_600_000_000).unwrap() && fields[0].len() == 30,
            "{line}"
        );
        records.push((fields[1], fields[2], fields[3].len()));
    }
    let stdout: Vec<_> = records.iter().filter(|r| r.0 == "stdout").map(|r| (r.1, r.2)).collect();
    assert_eq!(stdout, [("F", 3), ("P", 16384), ("P", 16384), ("F", 7232), ("F", 3)]);
    assert!(records.contains(&("stderr", "F", 3)));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
}

#[tokio::test]
async fn output_of_a_burst_is_complete_and_in_order() {
    let node = Node::start().await;
    let spec = node.spec("many 20000");
    let path = spec.log_path.clone();
    let (exit, text) = node.run(spec).await;
    assert_eq!(exit.code, 0);
    let expected: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    assert!(text == expected, "{} bytes instead of {}: {}", text.len(), expected.len(), printed(&path).len());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_does_not_stop_the_container() {
    let node = Node::start().await;
    let mut spec = node.spec("many 20000 -- exit 3");
    // A directory is in the way.
    fs::create_dir_all(&spec.log_path).unwrap();
    let (exit, _) = node.run(spec.clone()).await;
    assert_eq!(exit.code, 3);
    spec.attempt += 100;
    spec.log_path = "".into();
    assert_eq!(node.run(spec).await.0.code, 3);
}
