//! What traffic policies do when services are slow, broken or overloaded, told by the client and by the server.

use super::echo::{Echo, HOST, URL, ensure_share};
use crate::mesh::{Mesh, eventually};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Pieces of an answer's status, counted by what `tally.classes` holds.
fn overloaded(answer: &http::Response<bytes::Bytes>) -> String {
    let mark = answer.headers().get("x-envoy-overloaded").and_then(|value| value.to_str().ok());
    format!("{} {}", answer.status().as_u16(), mark.unwrap_or("-"))
}

fn nothing(_: &http::Response<bytes::Bytes>) -> String {
    String::new()
}

pub async fn faults_come_by_share_and_header(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    echo.route(
        "  - match: [{headers: {end-user: {exact: jason}}}]\n    fault: {delay: {fixedDelay: 1s, percentage: {value: 100}}}\n    \
         route: [{destination: {host: echo}}]\n  - match: [{uri: {prefix: /half}}]\n    \
         fault: {delay: {fixedDelay: 2s, percentage: {value: 50}}}\n    route: [{destination: {host: echo}}]\n  \
         - match: [{uri: {prefix: /abort}}]\n    fault: {abort: {httpStatus: 555, percentage: {value: 10}}}\n    \
         route: [{destination: {host: echo}}]\n  - route: [{destination: {host: echo}}]\n",
    )?;
    let (answer, took) = echo.outside.get(HOST, "/slow", &[("end-user", "jason")]).await?;
    ensure!(answer.status() == 200 && took >= Duration::from_secs(1), "{} after {took:?}", answer.status());
    let (answer, took) = echo.outside.get(HOST, "/fast", &[("end-user", "jane")]).await?;
    ensure!(answer.status() == 200 && took < Duration::from_secs(1), "{} after {took:?}", answer.status());
    ensure!(echo.count("echo", "/slow")? == 1 && echo.count("echo", "/fast")? == 1);
    let inside = echo.call("echo", "client", &[&format!("{URL}/slow-inside"), "-H", "end-user: jason"])?;
    ensure!(inside["status"] == 200 && inside["millis"].as_u64() >= Some(1000), "{inside}");

    let times = echo.times("/half", 200, 100).await?;
    let slow = times.iter().filter(|(_, took)| *took >= Duration::from_secs(2)).count();
    ensure_share("delays", slow, 200, 50.0)?;

    let tally = echo.outside.many(HOST, "/abort", 10_000, 16, nothing).await;
    let aborted = tally.statuses.get(&555).copied().unwrap_or(0);
    let good = tally.statuses.get(&200).copied().unwrap_or(0);
    ensure!(aborted + good == 10_000, "{tally:?}");
    ensure!(tally.failures.iter().all(|said| said.contains("fault filter abort")), "{tally:?}");
    ensure_share("aborts", aborted, 10_000, 10.0)?;
    let arrived = echo.count("echo", "/abort")?;
    ensure!(arrived == good as u64, "{arrived} requests came to the server, {good} were answered by it");
    Ok(format!("{slow} of 200 delayed, {aborted} of 10,000 aborted"))
}

pub async fn a_route_times_out(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    echo.route("  - timeout: 0.5s\n    route: [{destination: {host: echo}}]\n")?;
    echo.apply(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: log, namespace: echo}\n\
         spec: {accessLogging: [{providers: [{name: envoy}]}]}\n",
    )?;
    let (limit, slack) = (Duration::from_millis(500), Duration::from_millis(600));
    let (answer, took) = echo.outside.get(HOST, "/delay/3000/outside", &[]).await?;
    ensure!(answer.status() == 504 && answer.body() == "upstream request timeout", "{answer:?}");
    ensure!(took >= limit && took < limit + slack, "answered after {took:?}");
    let inside = echo.call("echo", "client", &[&format!("{URL}/delay/3000/inside")])?;
    ensure!(inside["status"] == 504 && inside["body"] == "upstream request timeout", "{inside}");
    let millis = u128::from(inside["millis"].as_u64().context("no time")?);
    ensure!(millis >= limit.as_millis() && millis < (limit + slack).as_millis(), "{inside}");
    for path in ["/delay/3000/outside", "/delay/3000/inside"] {
        let count = echo.count("echo", path)?;
        ensure!(count == 1, "a timeout must not be tried again: {count} requests for {path}");
    }
    eventually("the access log tells of the timeout", Duration::from_secs(5), async || {
        let logs = mesh.kubectl(&["logs", "-n", "echo", "deploy/client", "-c", "istio-proxy"])?;
        let line = logs.lines().find(|line| line.contains("/delay/3000/inside")).context("no line")?;
        ensure!(line.contains(" 504 UT "), "{line}");
        Ok(())
    })
    .await?;
    Ok(format!("{} ms and {millis} ms for 500 ms", took.as_millis()))
}

pub async fn retries_are_as_many_as_asked(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    echo.route(
        "  - match: [{uri: {prefix: /delay}}]\n    timeout: 10s\n    \
         retries: {attempts: 2, perTryTimeout: 0.3s, retryOn: gateway-error}\n    route: [{destination: {host: echo}}]\n  \
         - match: [{headers: {x-tries: {exact: none}}}]\n    retries: {attempts: 0}\n    route: [{destination: {host: echo}}]\n  \
         - retries: {attempts: 3, retryOn: '5xx,connect-failure'}\n    route: [{destination: {host: echo}}]\n",
    )?;
    let attempt = |path: &str| -> Result<String> {
        let last = echo.last("echo", path)?;
        Ok(last["headers"]["x-envoy-attempt-count"].as_str().unwrap_or("none").to_owned())
    };
    for (path, headers, status, count) in [
        ("/flaky/2/some", None, 200, 3),
        ("/flaky/3/just", None, 200, 4),
        ("/flaky/9/all", None, 503, 4),
        ("/status/500/all", None, 500, 4),
        ("/status/404/not-5xx", None, 404, 1),
        ("/flaky/1/none", Some(("x-tries", "none")), 503, 1),
        ("/delay/3000/per-try", None, 504, 3),
    ] {
        let headers: Vec<_> = headers.into_iter().collect();
        let (answer, took) = echo.outside.get(HOST, path, &headers).await?;
        ensure!(answer.status() == status, "{path}: {answer:?}");
        let (came, last) = (echo.count("echo", path)?, attempt(path)?);
        ensure!(came == count, "{path}: {came} tries, not {count}");
        ensure!(
            last == count.to_string(),
            "{path}: x-envoy-attempt-count of the last was {last}, not {count}"
        );
        ensure!(took < Duration::from_secs(3), "{path} took {took:?}");
    }
    let inside = echo.call("echo", "client", &[&format!("{URL}/flaky/2/inside")])?;
    ensure!(inside["status"] == 200 && echo.count("echo", "/flaky/2/inside")? == 3, "{inside}");
    // Nobody listens there, and no sidecar stands before it.
    let refused = echo.call("echo", "client", &["http://dead.plain:9080/refused"])?;
    let said = refused["body"].as_str().unwrap_or("");
    ensure!(
        refused["status"] == 503 && said.starts_with("upstream connect error or disconnect/reset"),
        "{refused}"
    );
    Ok(String::new())
}

pub async fn connection_pools_overflow_and_recover(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    echo.route("  - retries: {attempts: 0}\n    route: [{destination: {host: echo}}]\n")?;
    let rule = |pool: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: echo, namespace: echo}}\n\
             spec: {{host: echo, trafficPolicy: {{connectionPool: {pool}}}}}\n"
        )
    };
    let mut said = Vec::new();
    for (name, pool, at_once_max) in [
        (
            "pending",
            "{tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}",
            // As in Envoy, an endpoint may have one connection from each of the gateway's two workers.
            2,
        ),
        ("requests", "{http: {http2MaxRequests: 2}}", 2),
    ] {
        echo.apply(&rule(pool))?;
        let path = format!("/delay/100/{name}");
        let tally = echo.outside.many(HOST, &path, 100, 20, overloaded).await;
        let good = tally.classes.get("200 -").copied().unwrap_or(0);
        let refused = tally.classes.get("503 true").copied().unwrap_or(0);
        ensure!(good > 0 && refused > 0 && good + refused == 100, "{name}: {tally:?}");
        ensure!(tally.failures.iter().all(|text| text.contains("overflow")), "{name}: {tally:?}");
        let (_, seen) = echo.seen("echo", &path)?.pop().context("no pod")?;
        ensure!(seen["count"] == good, "{name}: {good} good answers, at the server {seen}");
        ensure!(seen["atOnce"].as_u64() <= Some(at_once_max), "{name}: more at once than allowed: {seen}");
        said.push(format!("{name}: {good} good, {refused} refused"));
    }
    echo.apply(&rule("{}"))?;
    let tally = echo.outside.many(HOST, "/delay/100/after", 100, 20, overloaded).await;
    ensure!(tally.bad() == 0, "without limits: {tally:?}");
    mesh.delete(&rule("{}"))?;
    Ok(said.join("; "))
}

pub async fn outliers_are_ejected_and_come_back(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let path = "/outlier";
    echo.route("  - retries: {attempts: 0}\n    route: [{destination: {host: trio}}]\n")?;
    echo.apply(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: trio, namespace: echo}\nspec:\n  host: trio\n  \
         trafficPolicy:\n    loadBalancer: {simple: ROUND_ROBIN}\n    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, \
         baseEjectionTime: 5s, maxEjectionPercent: 50}\n",
    )?;
    let mut bad = 0;
    for _ in 0..200 {
        let (answer, _) = echo.outside.get(HOST, path, &[]).await?;
        bad += usize::from(answer.status() == 503);
        if bad == 3 {
            break;
        }
    }
    let ejected = Instant::now();
    ensure!(bad == 3, "of 200 requests to three pods, one of them broken, {bad} failed");
    let tally = echo.outside.many(HOST, path, 1_000, 4, nothing).await;
    ensure!(ejected.elapsed() < Duration::from_secs(5), "too slow to tell: {:?}", ejected.elapsed());
    ensure!(tally.bad() == 0, "the broken pod got requests while it was ejected: {tally:?}");
    let came = |part: &str| -> Result<Vec<u64>> {
        let seen = echo.seen("trio", path)?;
        Ok(seen.iter().filter(|s| s.0.contains(part)).map(|s| s.1["count"].as_u64().unwrap_or(0)).collect())
    };
    ensure!(came("bad")? == [3], "the broken pod saw {:?}", came("bad")?);
    ensure!(came("good")?.iter().all(|count| *count > 300), "the others saw {:?}", came("good")?);
    let back = eventually("the pod comes back", Duration::from_secs(15), async || {
        let (answer, _) = echo.outside.get(HOST, path, &[]).await?;
        ensure!(answer.status() == 503, "only good answers");
        Ok(ejected.elapsed())
    })
    .await?;
    ensure!(back >= Duration::from_secs(5), "back after {back:?}, before its time");
    Ok(format!("1,000 good answers while ejected; back after {:.1}s", back.as_secs_f64()))
}

pub async fn mirrors_see_their_share_and_hurt_nobody(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let mirror = |host: &str, percent: u32| {
        format!(
            "  - route: [{{destination: {{host: echo}}}}]\n    mirror: {{host: {host}}}\n    mirrorPercentage: {{value: {percent}}}\n"
        )
    };
    echo.route(&mirror("mirror", 30))?;
    let path = "/mirrored";
    let tally = echo.outside.many(HOST, path, 2_000, 8, nothing).await;
    ensure!(tally.bad() == 0, "{tally:?}");
    ensure!(echo.count("echo", path)? == 2_000);
    // Mirrored requests may still be under way: wait until no more come.
    let mut before = u64::MAX;
    let share = eventually("mirrored requests arrive", Duration::from_secs(10), async || {
        let count = echo.count("mirror", path)?;
        ensure!(std::mem::replace(&mut before, count) == count, "{count} so far");
        Ok(count)
    })
    .await?;
    ensure_share("mirrored", usize::try_from(share)?, 2_000, 30.0)?;
    let last = echo.last("mirror", path)?;
    // Istio no longer adds `-shadow` to the host.
    ensure!(last["headers"]["host"] == HOST, "host of the mirrored request: {last}");
    for (host, path) in [("dead", "/mirror-is-dead"), ("trio", "/mirror-fails")] {
        echo.route(&mirror(host, 100))?;
        let tally = echo.outside.many(HOST, path, 300, 4, nothing).await;
        ensure!(tally.bad() == 0, "{path}: {tally:?}");
        ensure!(echo.count("echo", path)? == 300);
    }
    Ok(format!("{share} of 2,000 mirrored for 30 %"))
}

pub async fn meshd_away_loses_no_request(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let load = echo.outside.steady(HOST, "/while-away", 100, nothing);
    let scale = |count: &str| mesh.kubectl(&["scale", "-n", "mesh-system", "deployment/meshd", count]);
    scale("--replicas=0")?;
    eventually("meshd is gone", Duration::from_secs(40), async || {
        let pods = mesh.get(&["pods", "-n", "mesh-system", "-l", "app=meshd"])?;
        ensure!(pods["items"].as_array().is_some_and(Vec::is_empty), "it is there");
        Ok(())
    })
    .await?;
    let gone = Instant::now();
    // The time without meshd is what is tested; nothing tells its end but the clock.
    tokio::time::sleep(Duration::from_secs(60)).await;
    scale("--replicas=1")?;
    mesh.kubectl(&["rollout", "status", "-n", "mesh-system", "deployment/meshd", "--timeout=60s"])?;
    let away = gone.elapsed();
    let back = "  - headers: {request: {set: {x-after: back}}}\n    route: [{destination: {host: echo}}]\n";
    eventually("policies work again", Duration::from_secs(60), async || {
        echo.route(back)?;
        let (answer, _) = echo.outside.get(HOST, "/back", &[]).await?;
        let last = echo.last("echo", "/back")?;
        ensure!(answer.status() == 200 && last["headers"]["x-after"] == "back", "{answer:?}; {last}");
        Ok(())
    })
    .await?;
    let tally = load.stop().await?;
    ensure!(tally.bad() == 0, "{tally:?}");
    let came = echo.count("echo", "/while-away")?;
    ensure!(came == tally.total() as u64, "{} sent, {came} came", tally.total());
    Ok(format!("{:.0}s without meshd, {} requests, none failed", away.as_secs_f64(), tally.total()))
}
