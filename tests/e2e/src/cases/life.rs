//! Stopping, starting again, mistakes, and leaving nothing behind.

use crate::{
    load::Outside,
    mesh::{API_PORT, INGRESS_PORT, Mesh, eventually},
};
use anyhow::{Context, Result, ensure};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

pub async fn a_second_cluster_on_the_same_ports_is_refused(mesh: &Mesh) -> Result<String> {
    let (api, ingress) = (API_PORT.to_string(), INGRESS_PORT.to_string());
    let mut command =
        mesh.meshctl_command(&["up", "--no-mesh", "--api-port", &api, "--ingress-port", &ingress]);
    let other = format!("{}-b", mesh.name);
    let output = command.env("MESH_NAME", &other).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Whatever came of it, no later case and no later run shall find it.
    mesh.meshctl_command(&["down"]).env("MESH_NAME", &other).output()?;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    ensure!(
        said.contains(&format!("port {api}")) && said.contains("--api-port"),
        "which port, and how to choose another: {said}"
    );
    Ok(String::new())
}

pub async fn a_person_who_is_not_root_is_told_so(mesh: &Mesh) -> Result<String> {
    // The program must be where another user can read it.
    let copy = std::env::temp_dir().join(format!("meshctl-{}", std::process::id()));
    std::fs::copy(mesh.program("meshctl"), &copy)?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("up")
        .env("MESH_NAME", format!("{}-c", mesh.name))
        .output();
    std::fs::remove_file(&copy)?;
    let output = output.context("setpriv of util-linux is needed")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1) && said.contains("root") && said.contains("sudo meshctl up"),
        "{said}"
    );
    Ok(String::new())
}

pub async fn a_missing_image_and_a_crash_are_explained(mesh: &Mesh) -> Result<String> {
    let pod = |name: &str, image: &str, args: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{sidecar.istio.io/inject: \"false\"}}\nspec:\n  containers:\n  - name: main\n    image: {image}\n    imagePullPolicy: IfNotPresent\n    args: [{args}]\n"
        )
    };
    let text = format!(
        "{}---\n{}",
        pod("missing", "mesh.local/nothing:1", "x"),
        pod("crash", "mesh.local/bookinfo:latest", "nonsense")
    );
    mesh.apply(&text)?;
    let waiting = |name: &str| -> Result<String> {
        let pod = mesh.get(&["pod", name])?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        Ok(format!(
            "{} {}",
            waiting["reason"].as_str().unwrap_or("-"),
            waiting["message"].as_str().unwrap_or("")
        ))
    };
    eventually("the missing image is named", Duration::from_secs(20), async || {
        let said = waiting("missing")?;
        ensure!(said.contains("ImagePull") && said.contains("mesh.local/nothing:1"), "{said}");
        Ok(())
    })
    .await?;
    eventually("the crash is named", Duration::from_secs(20), async || {
        let said = waiting("crash")?;
        ensure!(
            said.starts_with("CrashLoopBackOff back-off")
                && said.contains("restarting failed container=main"),
            "{said}"
        );
        Ok(())
    })
    .await?;
    mesh.delete(&text)?;
    Ok(String::new())
}

pub async fn stop_and_up_find_everything_again(mesh: &Mesh) -> Result<String> {
    let kept = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kept\ndata:\n  key: value\n";
    mesh.apply(kept)?;
    mesh.meshctl(&["stop"])?;
    let (status, ..) = mesh.meshctl_any(&["status"])?;
    ensure!(status == 69, "a stopped cluster must not answer: {status}");
    let started = Instant::now();
    // Ports and nodes are those it was started with.
    mesh.meshctl(&["up", "--demo"])?;
    ensure!(mesh.get(&["configmap", "kept"])?["data"]["key"] == "value", "an object is gone");
    let (answer, _) = Outside::new().get("bookinfo", "/productpage", &[]).await?;
    ensure!(answer.status() == 200, "the application answers {}", answer.status());
    mesh.delete(kept)?;
    Ok(format!("up again in {:.1}s", started.elapsed().as_secs_f64()))
}

pub async fn a_killed_cluster_process_restarts_no_container(mesh: &Mesh) -> Result<String> {
    let starts = || -> Result<Vec<String>> {
        let pods = mesh.get(&["pods", "-A"])?;
        let all = pods["items"].as_array().context("no pods")?;
        // A pod that is on its way out, or that crashes by itself, says nothing.
        let steady = |pod: &&serde_json::Value| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["containerStatuses"][0]["ready"] == true
        };
        Ok(all
            .iter()
            .filter(steady)
            .flat_map(|pod| pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default())
            .map(|c| c["containerID"].to_string())
            .collect())
    };
    let before = starts()?;
    let (api, ingress) = (API_PORT.to_string(), INGRESS_PORT.to_string());
    let status: serde_json::Value = serde_json::from_str(&mesh.meshctl(&["status", "-o", "json"])?)?;
    ensure!(status["ready"] == true);
    let pid = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            words.get(1) == Some(&&b"run"[..])
                && words.contains(&mesh.name.as_bytes())
                && words[0].ends_with(b"cluster")
        })
        .context("the cluster process is not there")?;
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    ensure!(killed.success());
    mesh.meshctl(&["up", "--demo", "--api-port", &api, "--ingress-port", &ingress])?;
    let (answer, _) = Outside::new().get("bookinfo", "/productpage", &[]).await?;
    ensure!(answer.status() == 200, "the application answers {}", answer.status());
    ensure!(starts()? == before, "a container was started again");
    Ok(format!("{} containers went on", before.len()))
}

/// `up` ends this soon after the cluster went away from under it: it looks five times a second, on a machine that may be busy.
const NOTICED: Duration = Duration::from_secs(2);

pub async fn down_during_up_leaves_nothing(mesh: &Mesh) -> Result<String> {
    let name = format!("{}-u", mesh.name);
    let meshctl = |args: &[&str]| {
        let mut command = mesh.meshctl_command(args);
        command.env("MESH_NAME", &name);
        command
    };
    let mut said = Vec::new();
    for delay in [20, 150, 600, 1500, 3000] {
        let mut up = meshctl(&["up", "--demo", "--api-port", "26443", "--ingress-port", "28080"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = format!("/var/lib/{name}/cluster.log");
        eventually("up begins", Duration::from_secs(10), async || {
            ensure!(Path::new(&log).exists(), "there is no {log}");
            Ok(())
        })
        .await?;
        // The moment is what is tested; nothing tells its coming but the clock.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let down = meshctl(&["down"]).output()?;
        ensure!(down.status.success(), "down after {delay} ms: {}", String::from_utf8_lossy(&down.stderr));
        let removed = Instant::now();
        let status = loop {
            if let Some(status) = up.try_wait()? {
                break status;
            }
            if removed.elapsed() > NOTICED {
                up.kill()?;
                up.wait()?;
                anyhow::bail!(
                    "down came {delay} ms after up began; up had not noticed {NOTICED:?} after its end"
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut text = String::new();
        std::io::Read::read_to_string(&mut up.stderr.take().context("no standard error")?, &mut text)?;
        ensure!(
            status.code() == Some(1)
                && text.contains("stopped or removed meanwhile")
                && text.contains("fix: run meshctl up again"),
            "down after {delay} ms: {status}: {text}"
        );
        nothing_is_left(&name).with_context(|| format!("down after {delay} ms"))?;
        said.push(format!("{:.0}", removed.elapsed().as_secs_f64() * 1000.0));
    }
    Ok(format!("up ended {} ms after down", said.join(", ")))
}

pub async fn down_leaves_nothing(mesh: &Mesh) -> Result<String> {
    let started = Instant::now();
    mesh.down()?;
    let took = started.elapsed();
    nothing_is_left(&mesh.name)?;
    // Sidecars drain for five seconds; nobody is left to drain for.
    ensure!(took < Duration::from_secs(5), "down took {took:?}");
    mesh.down().context("a second down must change nothing and succeed")?;
    Ok(format!("down in {:.1}s", took.as_secs_f64()))
}

fn nothing_is_left(name: &str) -> Result<()> {
    for path in [format!("/var/lib/{name}"), format!("/run/{name}")] {
        ensure!(!Path::new(&path).exists(), "{path} is still there");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let ours = |line: &str| line.contains(&format!("/{name}/")) || line.contains(&format!("/{name}-"));
    ensure!(
        !mounts.lines().any(ours),
        "mounts are left:\n{}",
        mounts.lines().filter(|l| ours(l)).collect::<Vec<_>>().join("\n")
    );
    let namespaces = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    let left: Vec<String> = namespaces.filter(|ns| ns.starts_with(&format!("{name}-"))).collect();
    ensure!(left.is_empty(), "namespaces are left: {left:?}");
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "-name", &format!("cluster-{name}*")])
        .output()?;
    ensure!(found.stdout.is_empty(), "cgroups are left: {}", String::from_utf8_lossy(&found.stdout));
    let processes = Command::new("pgrep").args(["-f", &format!("--name {name} ")]).output()?;
    ensure!(
        processes.stdout.is_empty(),
        "processes are left: {}",
        String::from_utf8_lossy(&processes.stdout)
    );
    Ok(())
}
