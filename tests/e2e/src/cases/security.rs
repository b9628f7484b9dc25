//! Who may call whom, and what is kept from whom.

use super::echo::{Echo, HOST, URL, raw_to_gateway};
use crate::mesh::Mesh;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

const PERMISSIVE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: echo}\n\
                          spec: {mtls: {mode: PERMISSIVE}}\n";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: echo}}\nspec: {spec}\n"
    )
}

/// Error or nothing at all, as opposed to an HTTP answer.
fn refused(said: &Value) -> bool {
    said["status"].is_null() && said["error"].is_string()
}

pub async fn plain_callers_are_refused_under_strict(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let call = |path: &str| echo.call("plain", "plain", &[&format!("{URL}{path}")]);
    let said = call("/strict")?;
    ensure!(refused(&said) && echo.count("echo", "/strict")? == 0, "{said}");
    echo.apply(PERMISSIVE)?;
    let said = call("/permissive")?;
    ensure!(said["status"] == 200, "{said}");
    let last = echo.last("echo", "/permissive")?;
    ensure!(last["headers"]["x-forwarded-client-cert"].is_null(), "an identity nobody proved: {last}");
    let mutual = echo.call("echo", "client", &[&format!("{URL}/permissive-mutual")])?;
    let last = echo.last("echo", "/permissive-mutual")?;
    ensure!(
        mutual["status"] == 200 && last["headers"]["x-forwarded-client-cert"].is_string(),
        "mutual TLS must go on: {mutual}; the server saw {last}"
    );
    mesh.delete(PERMISSIVE)?;
    let said = call("/strict-again")?;
    ensure!(refused(&said) && echo.count("echo", "/strict-again")? == 0, "{said}");
    Ok(said["error"].as_str().unwrap_or("").to_owned())
}

pub async fn the_server_sees_who_calls(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let forged = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/echo/sa/echo;URI=spiffe://cluster.local/ns/x/sa/forged";
    echo.call("echo", "client", &[&format!("{URL}/who"), "-H", forged])?;
    let (name, value) = forged.split_once(": ").context("no header")?;
    echo.outside.get(HOST, "/who-outside", &[(name, value)]).await?;
    for (path, caller) in
        [("/who", "echo/sa/client"), ("/who-outside", "mesh-system/sa/istio-ingressgateway")]
    {
        let last = echo.last("echo", path)?;
        let cert = last["headers"]["x-forwarded-client-cert"].to_string();
        ensure!(
            cert.contains(&format!("URI=spiffe://cluster.local/ns/{caller}"))
                && cert.contains("By=spiffe://cluster.local/ns/echo/sa/echo"),
            "{path}: {cert}"
        );
        ensure!(!cert.contains("forged"), "{path}: {cert}");
    }
    Ok(String::new())
}

pub async fn authorization_denies_and_allows(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    let client =
        |path: &str, method: &str| echo.call("echo", "client", &[&format!("{URL}{path}"), "-X", method]);
    let ratings = |path: &str| echo.call("default", "ratings-v1", &[&format!("{URL}{path}")]);
    let allowed = |said: &Value, path: &str| -> Result<()> {
        ensure!(said["status"] == 200, "{path} must be allowed: {said}");
        ensure!(echo.count("echo", path)? == 1, "{path} did not come to the server");
        Ok(())
    };
    let denied = |said: &Value, path: &str| -> Result<()> {
        ensure!(
            said["status"] == 403 && said["body"] == "RBAC: access denied",
            "{path} must be denied: {said}"
        );
        ensure!(echo.count("echo", path)? == 0, "{path} was denied and yet came to the server");
        Ok(())
    };
    allowed(&client("/before", "GET")?, "/before")?;

    echo.apply(&policy("nothing", "{}"))?;
    denied(&client("/default", "GET")?, "/default")?;
    denied(&ratings("/default")?, "/default")?;
    let (answer, _) = echo.outside.get(HOST, "/default", &[]).await?;
    ensure!(answer.status() == 403 && answer.body() == "RBAC: access denied", "{answer:?}");

    echo.apply(&policy(
        "some",
        "{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/echo/sa/client]}}]}]}",
    ))?;
    allowed(&client("/principal", "GET")?, "/principal")?;
    denied(&ratings("/other-principal")?, "/other-principal")?;

    echo.apply(&policy("some", "{action: ALLOW, rules: [{from: [{source: {namespaces: [default]}}]}]}"))?;
    allowed(&ratings("/namespace")?, "/namespace")?;
    denied(&client("/other-namespace", "GET")?, "/other-namespace")?;

    echo.apply(&policy(
        "some",
        "{rules: [{to: [{operation: {methods: [GET], paths: ['/open/*', '*.css']}}]}, {to: [{operation: {methods: [POST]}}]}]}",
    ))?;
    allowed(&client("/open/a", "GET")?, "/open/a")?;
    allowed(&client("/style.css", "GET")?, "/style.css")?;
    allowed(&client("/posted", "POST")?, "/posted")?;
    denied(&client("/open/deleted", "DELETE")?, "/open/deleted")?;
    denied(&client("/closed", "GET")?, "/closed")?;
    denied(&client("/open/../closed-too", "GET")?, "/closed-too")?;

    echo.apply(&policy(
        "never",
        "{action: DENY, rules: [{from: [{source: {principals: ['*/sa/client']}}], to: [{operation: {paths: [/open/b]}}]}]}",
    ))?;
    denied(&client("/open/b", "GET")?, "/open/b")?;
    allowed(&ratings("/open/b")?, "/open/b")?;

    for name in ["nothing", "some", "never"] {
        mesh.delete(&policy(name, "{}"))?;
    }
    allowed(&client("/after", "GET")?, "/after")?;
    Ok(String::new())
}

/// Requests that two readers may understand differently. Each carries the path that must not arrive.
fn ambiguous(host: &str, prefix: &str) -> Vec<(&'static str, String, String)> {
    let smuggled = format!("GET {prefix}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let make = |name: &'static str, head: &str| {
        let path = format!("{prefix}/{}", name.replace(' ', "-"));
        (name, path.clone(), head.replace("$PATH", &path).replace("$HOST", host))
    };
    vec![
        make(
            "two lengths",
            "POST $PATH HTTP/1.1\r\nHost: $HOST\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        ),
        make(
            "length and chunks",
            &format!(
                "POST $PATH HTTP/1.1\r\nHost: $HOST\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
                smuggled.len() + 5
            ),
        ),
        make(
            "unknown coding",
            &format!(
                "POST $PATH HTTP/1.1\r\nHost: $HOST\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        make("two hosts", "GET $PATH HTTP/1.1\r\nHost: $HOST\r\nHost: other.example.com\r\n\r\n"),
        make("no host", "GET $PATH HTTP/1.1\r\n\r\n"),
        make("bare line feeds", "GET $PATH HTTP/1.1\nHost: $HOST\n\n"),
        make("bare line feed in a header", "GET $PATH HTTP/1.1\r\nHost: $HOST\r\nX-A: b\nX-C: d\r\n\r\n"),
        make("folded header", "GET $PATH HTTP/1.1\r\nHost: $HOST\r\nX-A: b\r\n c\r\n\r\n"),
        make("space before colon", "POST $PATH HTTP/1.1\r\nHost: $HOST\r\nContent-Length : 3\r\n\r\nabc"),
        make("signed length", "POST $PATH HTTP/1.1\r\nHost: $HOST\r\nContent-Length: +3\r\n\r\nabc"),
    ]
}

pub async fn ambiguous_requests_go_nowhere(mesh: &Mesh) -> Result<String> {
    let echo = Echo::new(mesh)?;
    echo.apply(PERMISSIVE)?;
    let good =
        |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = raw_to_gateway(&good(HOST, "/gateway/good")).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "a good request: {answer}");
    let mut wrong = Vec::new();
    for (name, path, text) in ambiguous(HOST, "/gateway") {
        let answer = raw_to_gateway(&text).await?;
        check(&echo, &format!("gateway, {name}"), &path, &answer, &mut wrong)?;
    }
    // From a pod without sidecar to the server's sidecar; from a pod with one to its own.
    for (namespace, deployment) in [("plain", "plain"), ("echo", "client")] {
        let host = "echo.echo:9080";
        let prefix = format!("/{deployment}");
        let said = echo.send(namespace, deployment, host, &good(host, &format!("{prefix}/good")))?;
        ensure!(said["answer"].as_str().unwrap_or("").starts_with("HTTP/1.1 200"), "a good request: {said}");
        for (name, path, text) in ambiguous(host, &prefix) {
            let said = echo.send(namespace, deployment, host, &text)?;
            let answer = said["answer"].as_str().unwrap_or("");
            check(&echo, &format!("{deployment}, {name}"), &path, answer, &mut wrong)?;
        }
    }
    for path in ["/gateway/smuggled", "/plain/smuggled", "/client/smuggled"] {
        if echo.count("echo", path)? != 0 {
            wrong.push(format!("{path} was smuggled through"));
        }
    }
    mesh.delete(PERMISSIVE)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n    "));
    Ok("30 ambiguous requests".into())
}

fn check(echo: &Echo<'_>, what: &str, path: &str, answer: &str, wrong: &mut Vec<String>) -> Result<()> {
    let came = echo.count("echo", path)?;
    if !answer.starts_with("HTTP/1.1 400") || answer.matches("HTTP/1.1 ").count() != 1 || came != 0 {
        wrong.push(format!("{what}: {came} forwarded, answer {answer:?}"));
    }
    Ok(())
}

/// The processes of sidecars in pods of this cluster: the folder of each.
fn sidecars(uids: &[String]) -> Vec<PathBuf> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
            let groups = read("cgroup").replace('_', "-");
            read("comm").trim() == "sidecar" && uids.iter().any(|uid| groups.contains(uid.as_str()))
        })
        .collect()
}

/// Files under a folder that hold a private key; how many were looked at.
fn keys_under(folder: &Path, found: &mut Vec<PathBuf>) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut looked = 0;
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            let outside =
                ["proc", "sys", "dev"].iter().any(|name| path.ends_with(Path::new("root").join(name)));
            looked += if outside { 0 } else { keys_under(&path, found) };
        } else if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() < 1 << 20) {
            looked += 1;
            let bytes = std::fs::read(&path).unwrap_or_default();
            let word = b"PRIVATE KEY";
            if bytes.windows(word.len()).any(|window| window == word) {
                found.push(path);
            }
        }
    }
    looked
}

pub async fn keys_of_workloads_are_on_no_disk(mesh: &Mesh) -> Result<String> {
    let _echo = Echo::new(mesh)?;
    let pods = mesh.get(&["pods", "-A"])?;
    let pods = pods["items"].as_array().context("no pods")?.iter();
    let uids: Vec<String> = pods
        .filter(|pod| pod["metadata"]["annotations"]["sidecar.istio.io/status"].is_string())
        .filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned))
        .collect();
    let processes = sidecars(&uids);
    ensure!(
        !uids.is_empty() && processes.len() >= uids.len(),
        "{} sidecars in {} pods",
        processes.len(),
        uids.len()
    );
    let (mut found, mut looked) = (Vec::new(), 0);
    for process in &processes {
        looked += keys_under(&process.join("root"), &mut found);
    }
    let nodes = PathBuf::from(format!("/var/lib/{}/nodes", mesh.name));
    for node in std::fs::read_dir(&nodes)?.flatten() {
        for uid in &uids {
            looked += keys_under(&node.path().join("pods").join(uid), &mut found);
        }
    }
    ensure!(looked > uids.len(), "only {looked} files were looked at");
    ensure!(found.is_empty(), "private keys in {found:?}");
    Ok(format!("{looked} files of {} sidecars", processes.len()))
}
