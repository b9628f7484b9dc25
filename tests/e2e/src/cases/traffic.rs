//! Routing as a person uses it: samples, canary, refusals.

use super::echo::ensure_share;
use crate::{
    load::Outside,
    mesh::{Mesh, eventually},
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Response;
use std::time::Duration;

pub async fn requests_between_sidecars_are_mutual_tls(mesh: &Mesh) -> Result<String> {
    let outside = Outside::new();
    let tally = outside.many("bookinfo", "/productpage", 200, 4, |_| String::new()).await;
    ensure!(tally.bad() == 0, "{tally:?}");
    let load = outside.steady("bookinfo", "/productpage", 20, |_| String::new());
    let rows: serde_json::Value = serde_json::from_str(&mesh.meshctl(&["stat", "-o", "json"])?)?;
    load.stop().await?;
    let rows = rows.as_array().context("no rows")?;
    for name in ["productpage-v1", "details-v1"] {
        let row = rows
            .iter()
            .find(|row| row["workload"] == name)
            .with_context(|| format!("no figures of {name}: {rows:?}"))?;
        ensure!(row["mtls"] == 100.0 && row["success"] == 100.0, "{row}");
    }
    Ok(format!("{} workloads", rows.len()))
}

/// Which version of reviews made the page: by its stars.
pub fn stars(page: &Response<Bytes>) -> String {
    let text = String::from_utf8_lossy(page.body());
    let class = if text.contains("class=\"red\"") {
        "v3"
    } else if text.contains("class=\"black\"") {
        "v2"
    } else if text.contains("Reviewer1") {
        "v1"
    } else {
        "none"
    };
    class.into()
}

/// Whether the page has reviews.
pub fn page_reviews(page: &Response<Bytes>) -> bool {
    !String::from_utf8_lossy(page.body()).contains("Error fetching product reviews!")
}

pub async fn samples_apply_and_do_what_they_say(mesh: &Mesh) -> Result<String> {
    let outside = Outside::new();
    let apply = |name: &str| mesh.meshctl(&["apply", "-f", &Mesh::sample(name)]);
    let seen = async |headers: &[(&str, &str)]| -> Result<(String, Duration, String)> {
        let (page, took) = outside.get("bookinfo", "/productpage", headers).await?;
        Ok((stars(&page), took, String::from_utf8_lossy(page.body()).into_owned()))
    };
    let jason = [("end-user", "jason")];
    let out = apply("virtual-service-all-v1.yaml")?;
    ensure!(out.contains("acked"), "apply must say who has it: {out}");
    for _ in 0..10 {
        ensure!(seen(&[]).await?.0 == "v1");
    }
    apply("virtual-service-reviews-jason-v2-v3.yaml")?;
    ensure!(seen(&jason).await?.0 == "v2" && seen(&[]).await?.0 == "v3");
    apply("virtual-service-ratings-test-abort.yaml")?;
    let (_, _, page) = seen(&jason).await?;
    ensure!(page.contains("Ratings service is currently unavailable"), "jason must see the fault: {page}");
    ensure!(seen(&[]).await?.0 == "v3", "others must not");
    apply("virtual-service-ratings-test-delay.yaml")?;
    let (_, took, page) = seen(&jason).await?;
    // productpage waits 3 s twice for reviews, which waits for the 7 s delay.
    ensure!(
        page.contains("Error fetching product reviews!") && took > Duration::from_secs(5),
        "after {took:?}: {page}"
    );
    apply("virtual-service-ratings-test-abort.yaml")?;
    apply("virtual-service-reviews-v3.yaml")?;
    ensure!(seen(&[]).await?.0 == "v3");
    mesh.meshctl(&["delete", "-f", &Mesh::sample("virtual-service-all-v1.yaml")])?;
    Ok(String::new())
}

/// A host of its own through the gateway, so that each request makes one choice.
fn split(v1: u32, v3: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: split\nspec:\n  hosts: [split.example.com]\n  gateways: [bookinfo-gateway]\n  http:\n  - route:\n    - destination: {{host: reviews, subset: v1, port: {{number: 9080}}}}\n      weight: {v1}\n    - destination: {{host: reviews, subset: v3, port: {{number: 9080}}}}\n      weight: {v3}\n"
    )
}

/// The version that answered: v3 shows red ratings, v1 none.
fn version(answer: &Response<Bytes>) -> String {
    if String::from_utf8_lossy(answer.body()).contains("\"red\"") { "v3".into() } else { "v1".into() }
}

pub async fn a_canary_loses_no_request_and_keeps_its_weights(mesh: &Mesh) -> Result<String> {
    let outside = Outside::new();
    mesh.apply(&split(100, 0))?;
    let path = "/reviews/0";
    eventually("the host answers", Duration::from_secs(5), async || {
        let (answer, _) = outside.get("split.example.com", path, &[]).await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        Ok(())
    })
    .await?;
    let load = outside.steady("split.example.com", path, 200, version);
    let mut said = Vec::new();
    for (v1, v3) in [(100, 0), (90, 10), (50, 50), (0, 100)] {
        let out = mesh.apply(&split(v1, v3))?;
        ensure!(out.contains("acked"), "{out}");
        let tally = outside.many("split.example.com", path, 10_000, 16, version).await;
        ensure!(tally.bad() == 0, "at {v1}/{v3}: {tally:?}");
        let seen = tally.classes.get("v3").copied().unwrap_or(0);
        ensure_share("v3", seen, 10_000, f64::from(v3))?;
        said.push(format!("{v1}/{v3}: {seen}"));
    }
    let tally = load.stop().await?;
    ensure!(tally.bad() == 0, "requests failed while weights moved: {tally:?}");
    mesh.delete(&split(0, 100))?;
    Ok(format!("{}; {} steady requests, none failed", said.join(", "), tally.total()))
}

pub async fn an_invalid_file_is_refused_whole(mesh: &Mesh) -> Result<String> {
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: beside\n---\n";
    let cases = [
        (
            "spec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {host: reviews, subset: v4}\n",
            ":14:",
            "v4",
        ),
        (
            "spec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {host: reviews, subset: v1}\n      weight: 0\n    - destination: {host: reviews, subset: v3}\n      weight: 0\n",
            ":",
            "total destination weight = 0",
        ),
        ("spec:\n  hosts: [reviews]\n  htttp: []\n", ":12:", "unknown field"),
        ("spec:\n  hosts: [reviews\n", ":", ""),
    ];
    for (spec, place, word) in cases {
        let text = format!(
            "{good}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: bad\n{spec}"
        );
        let file = mesh.file("bad.yaml", &text)?;
        let (status, _, said) = mesh.meshctl_any(&["apply", "-f", &file])?;
        ensure!(status == 65, "exit status {status} for {spec}: {said}");
        ensure!(
            said.contains(&format!("bad.yaml{place}")) && said.contains(word) && said.contains("fix:"),
            "{said}"
        );
    }
    let (status, ..) = mesh.meshctl_any(&["get", "configmap", "beside"])?;
    ensure!(status != 0, "a part of a refused file was applied");
    Ok(String::new())
}
