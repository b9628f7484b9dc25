//! Rewrites, redirects, headers, unknown hosts, upgrades and plain TCP, told by the client and by the server.

use super::echo::{Echo, HOST, URL, raw_to_gateway};
use crate::mesh::Mesh;
use anyhow::{Result, ensure};

pub async fn routes_rewrite_redirect_and_change_headers(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    echo.route(
        "  - match: [{uri: {prefix: /old/}}]\n    rewrite: {uri: /new/, authority: inner.example.com}\n    \
         route: [{destination: {host: echo}}]\n  - match: [{uri: {exact: /moved}}]\n    \
         redirect: {uri: /elsewhere, authority: other.example.com, redirectCode: 302}\n  \
         - match: [{headers: {x-to: {regex: 'mir.*'}}}]\n    route: [{destination: {host: mirror}}]\n  \
         - match: [{queryParams: {who: {exact: mirror}}}]\n    route: [{destination: {host: mirror}}]\n  \
         - match: [{uri: {prefix: /headers}}]\n    headers: {request: {set: {x-set: s}, add: {x-add: a}, remove: [x-gone]}, \
         response: {add: {x-answer: yes-it-is}, remove: [content-type]}}\n    route: [{destination: {host: echo}}]\n  \
         - match: [{uri: {exact: /known}}]\n    route: [{destination: {host: echo}}]\n",
    )?;
    let get = async |path: &str, headers: &[(&str, &str)]| echo.outside.get(HOST, path, headers).await;
    let (answer, _) = get("/old/page?a=b", &[]).await?;
    let last = echo.last("echo", "/new/page")?;
    ensure!(answer.status() == 200 && last["query"] == "a=b", "{answer:?}; the server saw {last}");
    ensure!(last["headers"]["host"] == "inner.example.com", "{last}");
    let (answer, _) = get("/moved", &[]).await?;
    let place = answer.headers().get("location").and_then(|value| value.to_str().ok());
    ensure!(answer.status() == 302 && place == Some("http://other.example.com/elsewhere"), "{answer:?}");
    ensure!(echo.count("echo", "/moved")? == 0);
    get("/to/header", &[("x-to", "mirror")]).await?;
    get("/to/query?who=mirror", &[]).await?;
    for path in ["/to/header", "/to/query"] {
        ensure!(echo.count("mirror", path)? == 1 && echo.count("echo", path)? == 0, "{path} went astray");
    }
    let (answer, _) =
        get("/headers", &[("x-set", "before"), ("x-add", "before"), ("x-gone", "here")]).await?;
    let last = echo.last("echo", "/headers")?;
    let seen = &last["headers"];
    ensure!(seen["x-set"] == "s" && seen["x-gone"].is_null(), "{last}");
    let added = seen["x-add"].to_string();
    ensure!(added.contains("before") && added.contains('a'), "{last}");
    ensure!(
        answer.headers().get("x-answer").is_some_and(|v| v == "yes-it-is")
            && answer.headers().get("content-type").is_none(),
        "{answer:?}"
    );
    for (host, path) in [("unknown.example.com", "/known"), (HOST, "/unknown")] {
        let (answer, _) = echo.outside.get(host, path, &[]).await?;
        ensure!(answer.status() == 404 && answer.body().is_empty(), "{host}{path}: {answer:?}");
    }
    ensure!(echo.count("echo", "/known")? == 0 && echo.count("echo", "/unknown")? == 0);
    let inside = echo.call("echo", "client", &[&format!("{URL}/unknown")])?;
    ensure!(inside["status"] == 404, "{inside}");
    Ok(String::new())
}

pub async fn websockets_pass(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let head = |host: &str| {
        format!(
            "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nping after the head"
        )
    };
    let answer = raw_to_gateway(&head(HOST)).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\nping after the head"),
        "through the gateway: {answer}"
    );
    let inside = echo.send("echo", "client", "echo.echo:9080", &head("echo.echo:9080"))?;
    let answer = inside["answer"].as_str().unwrap_or("");
    ensure!(
        answer.starts_with("HTTP/1.1 101") && answer.ends_with("ping after the head"),
        "inside: {inside}"
    );
    ensure!(echo.count("echo", "/socket")? == 2);
    Ok(String::new())
}

pub async fn plain_tcp_passes(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let back = echo.send("echo", "client", "echo-tcp.echo:9000", "any bytes\r\nat all")?;
    ensure!(back["answer"] == "any bytes\r\nat all", "{back}");
    let refused = echo.send("plain", "plain", "echo-tcp.echo:9000", "any bytes")?;
    ensure!(
        refused["answer"].as_str().unwrap_or("").is_empty(),
        "strict mutual TLS let plain bytes in: {refused}"
    );
    Ok(String::new())
}
