//! The kubelet's own API: through the API server as people use it, and directly.

use std::net::SocketAddr;
use std::time::Duration;

use base_tls::{Client as TlsClient, Rotating, ServerCheck};
use bytes::Bytes;
use futures::AsyncBufReadExt as _;
use futures::SinkExt;
use futures::TryStreamExt;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use kube::api::{AttachParams, LogParams};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt, AsyncWriteExt};

use crate::world::{World, does, isolated, kubectls};

/// Asks the kubelet itself; status and body.
async fn ask(world: &World, identity: &Rotating, path: &str) -> (u16, String) {
    let address: SocketAddr = "172.30.0.11:10250".parse().unwrap();
    let stream = world.fabric_netns().connect(address).await.unwrap();
    let client = TlsClient::new(identity, ServerCheck::Name, &[b"http/1.1"]);
    let stream = client.connect(stream, "172.30.0.11").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "kubelet").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn logs_are_cut_stamped_and_followed() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [does("app", "print one -- print two -- serve 8080")], "terminationGracePeriodSeconds": 5})).await;
        world.ready("web").await;
        world.logged("web", "app", "serving").await;
        let tail = LogParams { tail_lines: Some(2), ..LogParams::default() };
        assert_eq!(world.pods().logs("web", &tail).await.unwrap(), "two\nserving\n");
        let stamped = LogParams { limit_bytes: Some(5), timestamps: true, ..LogParams::default() };
        assert_eq!(world.pods().logs("web", &stamped).await.unwrap().len(), 5);
        let follow = LogParams { follow: true, ..LogParams::default() };
        let mut lines = world.pods().log_stream("web", &follow).await.unwrap().lines();
        for expected in ["one", "two", "serving"] {
            assert_eq!(lines.try_next().await.unwrap().as_deref(), Some(expected));
        }
        world.pods().delete("web", &Default::default()).await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(10), lines.try_next()).await.unwrap();
        assert_eq!(next.unwrap().as_deref(), Some("terminating"));
        let end = tokio::time::timeout(Duration::from_secs(10), lines.try_next()).await.unwrap();
        assert_eq!(end.unwrap(), None, "the stream ends with the container");
        world.gone("web").await;
        world
    });
}

#[test]
fn commands_run_with_their_streams_and_exit_codes() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [does("app", "wait")]})).await;
        world.ready("web").await;
        let pods = world.pods();
        let mut done = pods
            .exec("web", ["/probe", "print", "hello"], &AttachParams::default().stderr(false))
            .await
            .unwrap();
        let mut text = String::new();
        done.stdout().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello\n");
        let status = done.take_status().unwrap().await.unwrap();
        assert_eq!(status.status.as_deref(), Some("Success"));

        let mut failed = pods.exec("web", ["/probe", "exit", "7"], &AttachParams::default()).await.unwrap();
        let status = failed.take_status().unwrap().await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("7"));

        let params = AttachParams::default().stdin(true).stderr(false);
        let mut echo = pods.exec("web", ["/probe", "echo"], &params).await.unwrap();
        let (mut stdin, mut stdout) = (echo.stdin().unwrap(), echo.stdout().unwrap());
        stdin.write_all(b"ping\n").await.unwrap();
        let mut answer = [0; 10];
        tokio::time::timeout(Duration::from_secs(10), stdout.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"echo ping\n");
        // Closing the input ends the command, and the command the session.
        stdin.shutdown().await.unwrap();
        let status =
            tokio::time::timeout(Duration::from_secs(10), echo.take_status().unwrap()).await.unwrap();
        assert_eq!(status.unwrap().status.as_deref(), Some("Success"));
        world
    });
}

#[test]
fn a_terminal_has_a_size_and_one_stream() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [does("app", "wait")]})).await;
        world.ready("web").await;
        let params = AttachParams::interactive_tty();
        let mut shell = world.pods().exec("web", ["/probe", "echo"], &params).await.unwrap();
        let mut sizes = shell.terminal_size().unwrap();
        sizes.send(kube::api::TerminalSize { height: 24, width: 80 }).await.unwrap();
        let (mut stdin, mut stdout) = (shell.stdin().unwrap(), shell.stdout().unwrap());
        stdin.write_all(b"ping\n").await.unwrap();
        let mut seen = String::new();
        let answer = async {
            let mut byte = [0];
            while !seen.contains("echo ping") {
                stdout.read_exact(&mut byte).await.unwrap();
                seen.push(char::from(byte[0]));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap();
        assert!(seen.starts_with("ping\r\n"), "a terminal echoes what is typed: {seen:?}");
        // Ctrl-D on an empty line.
        stdin.write_all(&[4]).await.unwrap();
        let status =
            tokio::time::timeout(Duration::from_secs(10), shell.take_status().unwrap()).await.unwrap();
        assert_eq!(status.unwrap().status.as_deref(), Some("Success"));
        world
    });
}

#[test]
fn ports_inside_a_pod_are_forwarded() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [does("app", "serve 8080")]})).await;
        world.ready("web").await;
        let mut forward = world.pods().portforward("web", &[8080, 8081]).await.unwrap();
        let mut stream = forward.take_stream(8080).unwrap();
        stream.write_all(b"GET /status/201 HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let read =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap();
        read.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let refused = forward.take_error(8081).unwrap();
        let refused = tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap().unwrap();
        assert!(refused.contains("failed to connect to localhost:8081 inside the pod"), "{refused}");
        world
    });
}

#[test]
fn every_kubectl_reads_logs_and_runs_commands() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [does("app", "print hello -- serve 8080")], "terminationGracePeriodSeconds": 2})).await;
        world.ready("web").await;
        world.logged("web", "app", "serving").await;
        let tools = kubectls();
        for tool in &tools {
            let run = |arguments: &'static str, input: &'static str| {
                let arguments: Vec<_> = arguments.split(' ').collect();
                let (world, tool) = (&world, tool.clone());
                async move { world.kubectl(&tool, &arguments, input).await }
            };
            assert_eq!(run("logs web", "").await, (0, "hello\nserving\n".into()), "{tool:?}");
            assert_eq!(run("logs web --tail=1 -c app", "").await, (0, "serving\n".into()), "{tool:?}");
            assert_eq!(run("exec web -- /probe print a", "").await, (0, "a\n".into()), "{tool:?}");
            assert_eq!(
                run("exec -i web -- /probe echo", "typed\n").await,
                (0, "echo typed\n".into()),
                "{tool:?}"
            );
            let (code, text) = run("exec web -- /probe exit 3", "").await;
            assert_eq!(code, 3, "{tool:?}: {text}");
            let (code, text) = run("exec web -- /nothing", "").await;
            assert!(code != 0 && text.contains("/nothing"), "{tool:?}: {text}");
            let (code, text) = run("describe pod web", "").await;
            assert!(code == 0 && text.contains("Started container app"), "{tool:?}: {text}");
            let (code, text) = run("get pod web", "").await;
            assert!(code == 0 && text.contains("1/1     Running   0"), "{tool:?}: {text}");
        }
        if let Some(tool) = tools.last() {
            let mut follow = world.start_kubectl(tool, &["logs", "-f", "web"]);
            let mut lines = tokio::io::BufReader::new(follow.stdout.take().unwrap()).lines();
            let seen = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap();
            assert_eq!(seen.unwrap().as_deref(), Some("hello"));
            world.pods().delete("web", &Default::default()).await.unwrap();
            let rest = async {
                let mut last = None;
                while let Some(line) = lines.next_line().await.unwrap() {
                    last = Some(line);
                }
                (last, follow.wait().await.unwrap().code())
            };
            let ended = tokio::time::timeout(Duration::from_secs(10), rest).await.unwrap();
            assert_eq!(ended, (Some("terminating".to_owned()), Some(0)));
        }
        world
    });
}

#[test]
fn figures_and_pods_are_for_administrators_only() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [does("app", "serve 8080")]})).await;
        world.ready("web").await;
        let admin = world.client_identity("system:masters");
        for (path, text) in [
            ("/healthz", "ok"),
            ("/pods", "\"PodList\""),
            ("/metrics", "kubelet_running_pods 1"),
            ("/metrics/cadvisor", "container_memory_working_set_bytes{container=\"app\""),
            ("/metrics/resource", "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"}"),
            ("/stats/summary", "\"usageCoreNanoSeconds\""),
        ] {
            let (status, body) = ask(&world, &admin, path).await;
            assert_eq!(status, 200, "{path}: {body}");
            assert!(body.contains(text), "{path}: {body}");
        }
        assert_eq!(ask(&world, &admin, "/containerLogs/default/none/app").await.0, 404);
        assert_eq!(ask(&world, &admin, "/exec/default/web/app").await.0, 400);
        let nobody = world.client_identity("system:authenticated");
        assert_eq!(ask(&world, &nobody, "/pods").await.0, 403);
        world
    });
}
