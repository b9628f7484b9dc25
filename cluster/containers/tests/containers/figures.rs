//! Figures worth keeping an eye on. Bounds are loose: the machine may be busy. `--nocapture` prints them.

use std::fs;
use std::time::{Duration, Instant};

use cluster_containers::ContainerState;

use crate::lifecycle::words;
use crate::support::{Node, SECONDS_MAX};

/// Kilobytes of a line in `/proc/<pid>/smaps_rollup`.
fn memory(pid: i32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_is_quick_and_helpers_are_small() {
    let node = Node::start().await;
    let (mut creates, mut starts, mut firsts, mut execs, mut removes) =
        (vec![], vec![], vec![], vec![], vec![]);
    let mut sizes = (0, 0, 0);
    for _ in 0..10 {
        let mut spec = node.spec("print first -- wait-for SIGTERM");
        spec.seccomp = cluster_containers::Seccomp::RuntimeDefault;
        let path = spec.log_path.clone();
        let begin = Instant::now();
        let id = node.runtime.create_container(spec).await.unwrap();
        creates.push(begin.elapsed());
        node.runtime.start_container(&id).await.unwrap();
        starts.push(begin.elapsed());
        node.logged(&path, "first").await;
        firsts.push(begin.elapsed());
        let ContainerState::Running { pid, .. } = node.runtime.container_status(&id).await.unwrap().state
        else {
            panic!("it does not run")
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let helper = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        sizes = (memory(helper, "Rss:"), memory(helper, "Pss:"), memory(helper, "Anonymous:"));
        let begin = Instant::now();
        node.runtime.exec_sync(&id, words("/probe print x"), SECONDS_MAX).await.unwrap();
        execs.push(begin.elapsed());
        let begin = Instant::now();
        node.runtime.remove_container(&id).await.unwrap();
        removes.push(begin.elapsed());
    }
    let begin = Instant::now();
    let spec = cluster_containers::SandboxSpec { uid: "timed".into(), ..Default::default() };
    node.runtime.create_sandbox(spec).await.unwrap();
    let sandbox = begin.elapsed();
    println!(
        "create {:?}, started {:?}, first byte in the log {:?}, exec {:?}, kill and remove {:?}, sandbox {sandbox:?}; \
         helper {} KiB resident, {} KiB its share, {} KiB its own",
        median(&mut creates),
        median(&mut starts),
        median(&mut firsts),
        median(&mut execs),
        median(&mut removes),
        sizes.0,
        sizes.1,
        sizes.2,
    );
    assert!(median(&mut firsts) < Duration::from_millis(400));
    assert!(sizes.2 < 2048, "{} KiB", sizes.2);
}
