//! kubectl, unchanged, in the versions that the machine has.

use crate::mesh::{Mesh, eventually};
use anyhow::{Context, Result, ensure};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: e2e\ndata:\n  key: one\n";

pub async fn every_version_reads_and_writes(mesh: &Mesh) -> Result<String> {
    let all = Mesh::kubectls();
    ensure!(!all.is_empty(), "no kubectl.1.30 to kubectl.1.33 on this machine");
    for (version, program) in &all {
        let run = |args: &[&str], input: &str| {
            mesh.kubectl_with(program, args, input).with_context(|| format!("kubectl {version}"))
        };
        let table = run(&["get", "pods", "-o", "wide"], "")?;
        ensure!(
            table.contains("READY") && table.contains("node1") && table.contains("2/2"),
            "kubectl {version} get pods:\n{table}"
        );
        ensure!(run(&["get", "pods", "-o", "yaml"], "")?.contains("istio-proxy"));
        ensure!(run(&["get", "nodes", "-o", "json"], "")?.contains("\"node2\""));
        ensure!(run(&["api-resources"], "")?.contains("virtualservices"));
        ensure!(run(&["version"], "")?.contains("Server Version"));
        ensure!(run(&["describe", "pod", "-l", "app=ratings"], "")?.contains("Started container ratings"));
        ensure!(run(&["apply", "-f", "-"], CONFIG_MAP)?.contains("created"));
        ensure!(run(&["apply", "-f", "-"], CONFIG_MAP)?.contains("unchanged"));
        ensure!(run(&["apply", "-f", "-"], &CONFIG_MAP.replace("one", "two"))?.contains("configured"));
        ensure!(run(&["get", "configmap", "e2e", "-o", "jsonpath={.data.key}"], "")? == "two");
        run(&["label", "configmap", "e2e", "a=b"], "")?;
        ensure!(run(&["get", "configmap", "-l", "a=b", "-o", "name"], "")?.contains("configmap/e2e"));
        ensure!(run(&["delete", "configmap", "e2e"], "")?.contains("deleted"));
        let wrong = run(
            &["apply", "-f", "-"],
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containerz: []\n",
        );
        ensure!(
            wrong.is_err_and(|e| format!("{e:#}").contains("unknown field \"spec.containerz\"")),
            "kubectl {version} let an unknown field pass"
        );
    }
    Ok(all.iter().map(|(version, _)| version.as_str()).collect::<Vec<_>>().join(" "))
}

pub async fn logs_and_exec(mesh: &Mesh) -> Result<String> {
    let logs = mesh.kubectl(&["logs", "deploy/ratings-v1", "-c", "ratings"])?;
    ensure!(logs.contains("Serving"), "logs: {logs}");
    let out =
        mesh.kubectl(&["exec", "deploy/ratings-v1", "-c", "ratings", "--", "/bookinfo", "--version"])?;
    ensure!(out.contains("bookinfo"), "exec: {out}");
    let failed =
        mesh.kubectl(&["exec", "deploy/ratings-v1", "-c", "ratings", "--", "/bookinfo", "--nonsense"]);
    ensure!(
        failed.is_err_and(|e| format!("{e:#}").contains("exit code 2")),
        "the exit code of a command must come back"
    );
    Ok(String::new())
}

pub async fn scale_and_rollout(mesh: &Mesh) -> Result<String> {
    mesh.kubectl(&["scale", "deployment/details-v1", "--replicas=3"])?;
    mesh.kubectl(&["rollout", "status", "deployment/details-v1", "--timeout=60s"])?;
    mesh.kubectl(&["wait", "--for=condition=Ready", "pod", "-l", "app=details", "--timeout=60s"])?;
    mesh.kubectl(&["rollout", "restart", "deployment/details-v1"])?;
    mesh.kubectl(&["rollout", "status", "deployment/details-v1", "--timeout=90s"])?;
    mesh.kubectl(&["scale", "deployment/details-v1", "--replicas=1"])?;
    eventually("one pod is left", Duration::from_secs(60), async || {
        let pods = mesh.get(&["pods", "-l", "app=details"])?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        ensure!(count == 1, "{count} pods");
        Ok(())
    })
    .await?;
    Ok(String::new())
}

/// A program that goes on until dropped.
struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        let _ended_already = (self.0.kill(), self.0.wait());
    }
}

impl Going {
    /// Starts kubectl, its output to be read.
    fn kubectl(mesh: &Mesh, program: &Path, args: &[&str]) -> Result<Self> {
        let mut command = mesh.kubectl_command(program, args);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?))
    }

    /// Its lines, read by a thread of their own: a channel can be waited on with a deadline.
    fn lines(&mut self) -> Result<std::sync::mpsc::Receiver<String>> {
        let out = BufReader::new(self.0.stdout.take().context("no standard output")?);
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(lines)
    }
}

/// The first line that fits, within ten seconds.
fn line(lines: &std::sync::mpsc::Receiver<String>, fits: impl Fn(&str) -> bool) -> Result<String> {
    let mut seen = Vec::new();
    loop {
        let line = lines
            .recv_timeout(Duration::from_secs(10))
            .with_context(|| format!("only these lines came: {seen:#?}"))?;
        if fits(&line) {
            return Ok(line);
        }
        seen.push(line);
    }
}

pub async fn undo_watch_and_wait(mesh: &Mesh) -> Result<String> {
    let (_, program) = Mesh::kubectls().pop().context("no kubectl")?;
    let deployment = "deployment/details-v1";
    let marked =
        || mesh.kubectl(&["get", deployment, "-o", "jsonpath={.spec.template.metadata.annotations.e2e}"]);
    let mut watch =
        Going::kubectl(mesh, &program, &["get", "pods", "-l", "app=details", "-w", "-o", "name"])?;
    let lines = watch.lines()?;
    let first = line(&lines, |line| line.starts_with("pod/details-v1-"))?;
    let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"e2e":"marked"}}}}}"#;
    mesh.kubectl(&["patch", deployment, "--type", "merge", "-p", patch])?;
    mesh.kubectl(&["rollout", "status", deployment, "--timeout=60s"])?;
    let second = line(&lines, |line| line.starts_with("pod/details-v1-") && line != first)?;
    ensure!(marked()? == "marked");
    let history = mesh.kubectl(&["rollout", "history", deployment])?;
    ensure!(
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() >= 2,
        "{history}"
    );
    // The pod that is undone goes away, which `wait` sees to its end.
    let mut wait = Going::kubectl(mesh, &program, &["wait", "--for=delete", &second, "--timeout=60s"])?;
    mesh.kubectl(&["rollout", "undo", deployment])?;
    mesh.kubectl(&["rollout", "status", deployment, "--timeout=60s"])?;
    ensure!(marked()?.is_empty(), "the annotation is still there: {}", marked()?);
    ensure!(wait.0.wait()?.success(), "wait --for=delete");
    ensure!(mesh.kubectl(&["get", &second]).is_err_and(|error| format!("{error:#}").contains("NotFound")));
    let said = mesh.kubectl(&["describe", deployment])?;
    ensure!(said.contains("StrategyType:") && said.contains("MinimumReplicasAvailable"), "{said}");
    Ok(String::new())
}

pub async fn a_terminal_and_forwarded_ports(mesh: &Mesh) -> Result<String> {
    for (version, program) in Mesh::kubectls() {
        // `script` gives kubectl a terminal, as a person's shell does.
        let exec = ["exec", "-it", "deploy/ratings-v1", "-c", "ratings", "--", "/bookinfo", "--version"];
        let command = mesh.kubectl_command(&program, &exec);
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|w| w.to_string_lossy())
            .collect();
        let output = std::process::Command::new("script")
            .args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .context("script of bsdutils is needed")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && text.contains("bookinfo ") && !text.contains("Unable to use a TTY"),
            "kubectl {version} exec -it: {}: {text}",
            output.status
        );
        let mut forward = Going::kubectl(mesh, &program, &["port-forward", "deploy/ratings-v1", ":9080"])?;
        let lines = forward.lines()?;
        let said = line(&lines, |line| line.starts_with("Forwarding from 127.0.0.1:"))
            .with_context(|| format!("kubectl {version} port-forward"))?;
        let port =
            said.split([':', ' ']).find_map(|word| word.parse::<u16>().ok()).with_context(|| said.clone())?;
        // Several connections one after the other, and a pair at once.
        for _ in 0..3 {
            forwarded(port).await.with_context(|| format!("kubectl {version} port-forward"))?;
        }
        tokio::try_join!(forwarded(port), forwarded(port))
            .with_context(|| format!("kubectl {version} port-forward"))?;
    }
    Ok(String::new())
}

/// One request to the ratings service over a forwarded port.
async fn forwarded(port: u16) -> Result<()> {
    let call = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /ratings/0 HTTP/1.1\r\nHost: ratings\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("Reviewer1"), "{answer:?}");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), call).await.context("no answer within 10 s")?
}
