//! Pods through the life of their cluster: they run, outlive a kill, stop when asked, and leave nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::life::{block_on, client};
use crate::machine::{Machine, Running, SOON, isolated};
use crate::program::PORT_VARIABLE;

const OPTIONS: [&str; 2] = ["--publish", "9999:default/web:80"];

/// This program as an archive in the form of `docker save`.
fn image() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "program", &fs::read(std::env::current_exe().unwrap()).unwrap());
    let layer = layer.into_inner().unwrap();
    let digest = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let config = json!({"architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/program", "--exact", "program::serve", "--nocapture"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["program:1"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "config.json", config.to_string().as_bytes());
    append(&mut archive, "layer.tar", &layer);
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    archive.into_inner().unwrap()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content).unwrap();
}

/// Creates objects, or changes those that are there.
fn apply(machine: &Machine, objects: Vec<Value>) {
    block_on(async {
        let client = client(machine).await;
        for object in objects {
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let types = object.types.as_ref().unwrap();
            let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
            let gvk = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
            let api: Api<DynamicObject> =
                Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk(&gvk));
            let name = object.metadata.name.clone().unwrap();
            match api.create(&Default::default(), &object).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    api.patch(&name, &Default::default(), &kube::api::Patch::Merge(&object)).await.unwrap();
                }
                created => drop(created.unwrap()),
            }
        }
    });
}

fn pod(machine: &Machine) -> Option<Pod> {
    block_on(async {
        let pods: Api<Pod> = Api::default_namespaced(client(machine).await);
        pods.get_opt("web-0").await.unwrap()
    })
}

/// The identity of the running container, once it runs.
fn container(machine: &Machine, running: &Running) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let found = pod(machine);
        let status = found.as_ref().and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref()?.first());
        if let Some(status) = status
            && status.ready
        {
            return status.container_id.clone().unwrap();
        }
        assert!(Instant::now() < deadline, "{found:#?}\n{}", fs::read_to_string(&running.log).unwrap());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn objects() -> Vec<Value> {
    let environment = json!([{"name": PORT_VARIABLE, "value": "8080"}]);
    let container =
        json!({"name": "program", "image": "program:1", "imagePullPolicy": "Never", "env": environment});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0"}, "spec":
            {"nodeName": "node2", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
             "containers": [container]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
    ]
}

/// The service's endpoints by hand: it has no selector.
fn slice(machine: &Machine) -> Value {
    let ip = pod(machine).unwrap().status.unwrap().pod_ip.unwrap();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]})
}

fn get(address: impl ToSocketAddrs) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks the published port until the answer contains `expected`.
fn published(expected: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = get("127.0.0.1:9999");
        if answer.as_ref().is_ok_and(|answer| answer.contains(expected)) {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected:?}: {answer:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_pod_lives_through_its_clusters_ends() {
    isolated("pods", |machine| {
        let mut running = machine.start_with(&OPTIONS);
        machine.wait(&mut running, "two ready nodes", |status| status["ready"] == true);
        published("503 Service Unavailable");
        let loaded = machine.send("POST", "/images", &image()).unwrap();
        assert_eq!(loaded["loaded"][0]["names"][0], "docker.io/library/program:1", "{loaded}");
        apply(machine, objects());
        let first = container(machine, &running);
        apply(machine, vec![slice(machine)]);
        published("web-0");

        // Killed: the container goes on meanwhile, and the next process takes it up.
        drop(running);
        let mut running = machine.start_with(&OPTIONS);
        machine.wait(&mut running, "the cluster after a kill", |status| status["ready"] == true);
        published("web-0");
        assert_eq!(container(machine, &running), first, "the same container");

        // Stopped in order, with its pods: they come back with the cluster.
        machine.ask("POST", "/shutdown?pods=stop").unwrap();
        assert!(running.process.wait().unwrap().success());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ours = processes.filter(|process| {
            fs::read(process.path().join("environ"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&format!("{PORT_VARIABLE}=")))
        });
        assert_eq!(ours.count(), 0, "no container is left running");
        let mut running = machine.start_with(&OPTIONS);
        machine.wait(&mut running, "the cluster after a stop", |status| status["ready"] == true);
        let deadline = Instant::now() + SOON;
        while container(machine, &running) == first {
            assert!(Instant::now() < deadline, "the stopped container is still shown as running");
        }
        apply(machine, vec![slice(machine)]);
        published("web-0");
    });
}
