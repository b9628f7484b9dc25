//! meshctl's verbs, each as a person types it: what is printed, and what becomes of traffic.

use super::echo::ensure_share;
use crate::{
    load::{Outside, Tally},
    mesh::Mesh,
};
use anyhow::{Context, Result, ensure};
use http::Response;
use serde_json::Value;
use std::{io::Write, process::Stdio, time::Duration};

const PAGE: &str = "/productpage";
/// A host of its own that leads to ratings, so that each request meets the fault once.
const RATINGS: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: ratings\nspec:\n  hosts: [ratings, ratings.example.com]\n  gateways: [mesh, bookinfo-gateway]\n  http:\n  - route:\n    - destination: {host: ratings, port: {number: 9080}}\n";

fn plain(_: &Response<bytes::Bytes>) -> String {
    String::new()
}

async fn ratings(count: usize) -> Tally {
    Outside::new().many("ratings.example.com", "/ratings/0", count, 8, plain).await
}

pub async fn faults_are_made_listed_and_cleared(mesh: &Mesh) -> Result<String> {
    let outside = Outside::new();
    mesh.apply(RATINGS)?;
    ensure!(ratings(50).await.bad() == 0, "no fault yet");
    let out = mesh.meshctl(&["fault", "abort", "ratings", "--status", "503", "--percent", "20"])?;
    ensure!(out.contains("abort 503 for 20 %") && out.contains("acked"), "{out}");
    let tally = ratings(2_000).await;
    let aborted = tally.statuses.get(&503).copied().unwrap_or(0);
    ensure_share("aborted", aborted, 2_000, 20.0)?;
    ensure!(aborted == tally.bad(), "{tally:?}");
    let out = mesh.meshctl(&["fault", "list"])?;
    ensure!(
        out.contains("ratings") && out.contains("abort 503 for 20 %") && out.contains("all requests"),
        "{out}"
    );
    mesh.meshctl(&["fault", "clear", "ratings"])?;
    ensure!(!mesh.meshctl(&["fault", "list"])?.contains("abort"), "the fault is still listed");
    ensure!(ratings(200).await.bad() == 0, "cleared");

    let out = mesh.meshctl(&["fault", "delay", "ratings", "--ms", "700", "--match", "end-user=jason"])?;
    ensure!(out.contains("delay 0.7s for 100 %"), "{out}");
    let took = async |headers: &[(&str, &str)]| -> Result<Duration> {
        let (answer, took) = outside.get("ratings.example.com", "/ratings/0", headers).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        Ok(took)
    };
    let (jason, other) = (took(&[("end-user", "jason")]).await?, took(&[]).await?);
    ensure!(jason >= Duration::from_millis(700) && other < Duration::from_millis(700), "{jason:?} {other:?}");
    ensure!(mesh.meshctl(&["fault", "list"])?.contains("jason"));
    mesh.meshctl(&["fault", "clear", "ratings"])?;
    ensure!(took(&[("end-user", "jason")]).await? < Duration::from_millis(700), "cleared");
    let (status, _, said) = mesh.meshctl_any(&["fault", "abort", "ratings", "--status", "99"])?;
    ensure!(status == 64 && said.contains("--status"), "{status}: {said}");
    mesh.delete(RATINGS)?;
    Ok(format!("{aborted} of 2,000 aborted for 20 %"))
}

pub async fn a_canary_is_one_command(mesh: &Mesh) -> Result<String> {
    let out = mesh.meshctl(&["canary", "reviews", "v3", "--to", "30", "--from", "v1", "--dry-run"])?;
    ensure!(out.contains("kind: VirtualService") && out.contains("weight: 30"), "{out}");
    let (status, ..) = mesh.meshctl_any(&["get", "virtualservice", "reviews"])?;
    ensure!(status != 0, "a dry run stored something");
    let out = mesh.meshctl(&["canary", "reviews", "v3", "--to", "30", "--from", "v1"])?;
    ensure!(out.contains("virtualservice/reviews created") && out.contains("acked"), "{out}");
    let red = |page: &Response<bytes::Bytes>| {
        String::from_utf8_lossy(page.body()).contains("class=\"red\"").to_string()
    };
    let tally = Outside::new().many("bookinfo", PAGE, 1_000, 8, red).await;
    ensure!(tally.bad() == 0, "{tally:?}");
    let seen = tally.classes.get("true").copied().unwrap_or(0);
    ensure_share("pages by v3", seen, 1_000, 30.0)?;
    mesh.meshctl(&["canary", "reviews", "v3", "--to", "100"])?;
    let tally = Outside::new().many("bookinfo", PAGE, 100, 8, red).await;
    ensure!(tally.classes.get("true") == Some(&100), "{tally:?}");
    let (status, _, said) = mesh.meshctl_any(&["canary", "reviews", "v9", "--to", "10"])?;
    ensure!(status == 65 && said.contains("no subset `v9`") && said.contains("fix:"), "{status}: {said}");
    mesh.meshctl(&["delete", "virtualservice", "reviews"])?;
    Ok(format!("{seen} of 1,000 pages by v3 for 30 %"))
}

pub async fn apply_takes_files_and_standard_input(mesh: &Mesh) -> Result<String> {
    let file = mesh.file("ratings.yaml", RATINGS)?;
    // Without `-f`, from a file, then the same from standard input.
    let out = mesh.meshctl(&["apply", &file])?;
    ensure!(out.contains("virtualservice/ratings created"), "{out}");
    let mut child =
        mesh.meshctl_command(&["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(RATINGS.as_bytes())?;
    let output = child.wait_with_output()?;
    let out = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && out.contains("virtualservice/ratings unchanged"), "{out}");
    let yaml = mesh.meshctl(&["get", "vs", "ratings", "-o", "yaml"])?;
    ensure!(yaml.contains("ratings.example.com") && yaml.contains("kind: VirtualService"), "{yaml}");
    let result: Value = serde_json::from_str(&mesh.meshctl(&["apply", "-f", &file, "-o", "json"])?)?;
    ensure!(result[0]["action"] == "unchanged" && result[0]["acked"] == result[0]["affected"], "{result}");
    // What was applied can be given back as it was printed.
    let printed = mesh.file("printed.yaml", &yaml)?;
    ensure!(mesh.meshctl(&["apply", "-f", &printed])?.contains("unchanged"));
    let said = mesh.meshctl(&["describe", "virtualservice", "ratings"])?;
    ensure!(
        said.contains("Programmed") && said.contains("ratings.example.com") && said.contains("Events:"),
        "{said}"
    );
    mesh.meshctl(&["delete", "-f", &file])?;
    let (status, _, said) = mesh.meshctl_any(&["describe", "virtualservice/ratings"])?;
    ensure!(status == 1 && said.contains("not found"), "{status}: {said}");
    Ok(String::new())
}

pub async fn proxies_show_what_they_have(mesh: &Mesh) -> Result<String> {
    let table = mesh.meshctl(&["proxy", "list"])?;
    let synced = table.lines().filter(|line| line.contains("SYNCED")).count();
    ensure!(synced >= 7 && !table.contains("ERROR") && !table.contains("STALE"), "{table}");
    let list: Value = serde_json::from_str(&mesh.meshctl(&["proxy", "list", "-o", "json"])?)?;
    ensure!(list.as_array().map_or(0, Vec::len) == synced, "{list}");
    let routes: Value =
        serde_json::from_str(&mesh.meshctl(&["proxy", "config", "deploy/productpage-v1", "routes"])?)?;
    ensure!(routes.to_string().contains("reviews"), "{routes}");
    let clusters = mesh.meshctl(&["proxy", "config", "deploy/productpage-v1", "clusters", "-o", "yaml"])?;
    ensure!(clusters.contains("outbound|9080||details.default.svc.cluster.local"), "{clusters}");
    let all = mesh.meshctl(&["proxy", "config", "deploy/productpage-v1"])?;
    ensure!(!all.contains("PRIVATE KEY"), "a key is shown");
    let gateway =
        mesh.meshctl(&["proxy", "config", "deploy/istio-ingressgateway", "listeners", "-n", "mesh-system"])?;
    ensure!(gateway.contains("8080"), "{gateway}");
    let (status, _, said) = mesh.meshctl_any(&["proxy", "config", "deploy/nobody"])?;
    ensure!(status == 1 && said.contains("no pod with a proxy") && said.contains("fix:"), "{status}: {said}");
    Ok(format!("{synced} proxies"))
}

pub async fn figures_versions_and_completion(mesh: &Mesh) -> Result<String> {
    let load = Outside::new().steady("bookinfo", PAGE, 20, plain);
    let table = mesh.meshctl(&["stat"])?;
    load.stop().await?;
    ensure!(table.contains("productpage-v1") && table.contains("100.0"), "{table}");
    let version: Value = serde_json::from_str(&mesh.meshctl(&["version", "-o", "json"])?)?;
    ensure!(version.to_string().contains(env!("CARGO_PKG_VERSION")), "{version}");
    let script = mesh.meshctl(&["completion", "bash"])?;
    let file = mesh.file("completion.bash", &script)?;
    // What a shell offers after `meshctl ca` and a tab.
    let ask = format!(
        "source {file}; COMP_WORDS=(meshctl ca); COMP_CWORD=1; _meshctl meshctl ca meshctl; echo \"${{COMPREPLY[@]}}\""
    );
    let output = std::process::Command::new("bash").args(["-c", &ask]).output()?;
    let offered = String::from_utf8_lossy(&output.stdout);
    ensure!(
        offered.split_whitespace().any(|word| word == "canary"),
        "{offered} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for shell in ["zsh", "fish"] {
        ensure!(mesh.meshctl(&["completion", shell])?.contains("canary"), "{shell}");
    }
    let (status, ..) = mesh.meshctl_any(&["frobnicate"])?;
    ensure!(status == 64, "an unknown verb exits with {status}");
    Ok(String::new())
}
