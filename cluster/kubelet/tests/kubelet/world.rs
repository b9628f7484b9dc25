//! A private machine for one test: fabric, node, API server and kubelet in this process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base_tls::{CertificateAuthority, LeafProfile, Material, Roots, Rotating};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster_apiserver::Dialer;
use cluster_containers::{Runtime, RuntimeConfig};
use cluster_network::{Fabric, FabricConfig, NetNs, PodNetwork};
use futures::FutureExt;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use kube::{Api, Client};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_kubelet-probe");
pub(crate) const IMAGE: &str = "mesh.test/probe:1";
/// What takes longer than this does not happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) directory: PathBuf,
    name: String,
    fabric: Fabric,
    runtime_config: RuntimeConfig,
    authority: CertificateAuthority,
    kubelet: Option<(CancellationToken, JoinHandle<()>)>,
    root: CancellationToken,
    tasks: TaskTracker,
}

/// Dials kubelets and pods from the fabric.
struct FromFabric(NetNs);

impl Dialer for FromFabric {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(self.0.connect(address))
    }
}

// === impl World ===

impl World {
    async fn build() -> (tempfile::TempDir, Self) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().to_owned();
        let name = format!("k{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let run_dir = directory.join("run");
        let fabric =
            Fabric::ensure(&FabricConfig { name: name.clone(), run_dir: run_dir.clone(), nodes: 1 }).unwrap();
        let authority = CertificateAuthority::generate("test", "test", Duration::from_secs(3600)).unwrap();
        let runtime_config = RuntimeConfig {
            data_dir: directory.join("data"),
            run_dir,
            cgroup_parent: format!("{name}/node1"),
            shim: PROBE.into(),
            shim_args: vec!["shim".into()],
        };
        let runtime = Runtime::open(runtime_config.clone()).await.unwrap();
        runtime.images().load(io::Cursor::new(probe_image())).await.unwrap();
        let (root, tasks) = (CancellationToken::new(), TaskTracker::new());
        let client = api_server(&directory, &fabric, &authority, root.clone()).await;
        let mut world =
            Self { client, directory, name, fabric, runtime_config, authority, kubelet: None, root, tasks };
        world.account("default").await;
        world.start_kubelet().await;
        (temporary, world)
    }

    /// What the controllers would make.
    async fn account(&self, namespace: &str) {
        self.create("v1", "ServiceAccount", namespace, json!({"metadata": {"name": "default"}})).await;
        let root = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self.authority.certificate_pem()}});
        self.create("v1", "ConfigMap", namespace, root).await;
    }

    pub(crate) async fn start_kubelet(&mut self) {
        let node = self.fabric.nodes()[0].clone();
        let ip = IpAddr::V4(node.address);
        let profile =
            LeafProfile { server: true, addresses: vec![ip], ..leaf("system:node:node1", "system:nodes") };
        let config = cluster_kubelet::Config {
            node_name: "node1".into(),
            node_ip: ip,
            port: cluster_kubelet::PORT,
            pod_cidr: node.pod_cidr.to_string(),
            data_dir: self.directory.join("nodes/node1"),
            cluster_dns: Ipv4Addr::new(10, 96, 0, 10).into(),
            cluster_domain: "cluster.local".into(),
            serving: identity(&self.authority, &profile),
            runtime: Runtime::open(self.runtime_config.clone()).await.unwrap(),
            network: PodNetwork::open(&self.fabric, "node1").unwrap(),
            node_netns: node.net_ns,
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            taints: Vec::new(),
            capacity: BTreeMap::new(),
            version: "v1.34.0+test".into(),
        };
        let token = self.root.child_token();
        let run = cluster_kubelet::run(config, self.client.clone(), token.clone());
        let task = self.tasks.spawn(async move { run.await.unwrap() });
        self.kubelet = Some((token, task));
    }

    pub(crate) async fn stop_kubelet(&mut self) {
        let (token, task) = self.kubelet.take().unwrap();
        token.cancel();
        tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    }

    /// Ends everything of pods that does not survive a machine: processes, namespaces, memory.
    pub(crate) async fn lose_power(&self) {
        let runtime = Runtime::open(self.runtime_config.clone()).await.unwrap();
        let network = PodNetwork::open(&self.fabric, "node1").unwrap();
        for sandbox in runtime.list_sandboxes().await.unwrap() {
            runtime.remove_sandbox(&sandbox.spec.uid).await.unwrap();
            network.teardown(&sandbox.spec.uid).await.unwrap();
        }
        let root = self.node_dir();
        for line in fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines() {
            let point = line.split(' ').nth(4).unwrap();
            if Path::new(point).starts_with(&root) {
                nix::mount::umount(point).unwrap();
            }
        }
    }

    /// Starts a kubectl with pipes.
    pub(crate) fn start_kubectl(&self, program: &Path, arguments: &[&str]) -> tokio::process::Child {
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.join("kubeconfig"))
            .env("HOME", &self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// Runs a kubectl; its exit code and what it printed.
    pub(crate) async fn kubectl(&self, program: &Path, arguments: &[&str], input: &str) -> (i32, String) {
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.join("kubeconfig"))
            .env("HOME", &self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create(
        &self,
        version: &str,
        kind: &str,
        namespace: &str,
        object: Value,
    ) -> DynamicObject {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kube::core::GroupVersionKind::gvk(group, version, kind);
        let resource = kube::core::ApiResource::from_gvk(&kind);
        let mut object = object;
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(resource.kind);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    /// Creates a pod of `spec` on the node.
    pub(crate) async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("node1");
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    /// Waits until a pod looks as `condition` says, and answers it.
    pub(crate) async fn until(&self, name: &str, what: &str, condition: impl Fn(&Pod) -> bool) -> Pod {
        let mut last = None;
        let search = async {
            loop {
                let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
                let mut events = std::pin::pin!(self.pods().watch(&params, "0").await.unwrap());
                while let Ok(Some(event)) = events.try_next().await {
                    if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event {
                        if condition(&pod) {
                            return pod;
                        }
                        last = Some(pod);
                    }
                }
            }
        };
        match tokio::time::timeout(SOON, search).await {
            Ok(pod) => pod,
            Err(_) => panic!("waited in vain for {what}: {}", shown(&last.map(|pod| pod.status))),
        }
    }

    pub(crate) async fn ready(&self, name: &str) -> Pod {
        self.until(name, "readiness", |pod| condition(pod, "Ready") == "True").await
    }

    /// Deletes a pod and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str, grace_seconds: Option<u32>) {
        let params = DeleteParams { grace_period_seconds: grace_seconds, ..DeleteParams::default() };
        self.pods().delete(name, &params).await.unwrap();
        self.gone(name).await;
    }

    pub(crate) async fn gone(&self, name: &str) {
        eventually(&format!("the end of {name}"), async || {
            self.pods().get_opt(name).await.unwrap().is_none()
        })
        .await;
    }

    /// Waits for an event of that reason whose message contains `text`.
    pub(crate) async fn event(&self, pod: &str, reason: &str, text: &str) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let found = async || {
            api.list(&ListParams::default()).await.unwrap().items.into_iter().any(|event| {
                event.involved_object.name.as_deref() == Some(pod)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|message| message.contains(text))
            })
        };
        eventually(&format!("event {reason} \"{text}\""), found).await;
    }

    pub(crate) async fn logs(&self, pod: &str, container: &str) -> String {
        let params = kube::api::LogParams { container: Some(container.into()), ..Default::default() };
        self.pods().logs(pod, &params).await.unwrap()
    }

    /// Waits until the container's log contains `text`.
    pub(crate) async fn logged(&self, pod: &str, container: &str, text: &str) -> String {
        let params = kube::api::LogParams { container: Some(container.into()), ..Default::default() };
        let mut last = String::new();
        for _ in 0..1000 {
            last = self.pods().logs(pod, &params).await.unwrap_or_default();
            if last.contains(text) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("\"{text}\" is not in the log: {last}");
    }

    pub(crate) fn node_dir(&self) -> PathBuf {
        self.directory.join("nodes/node1")
    }

    /// What of pods is left on the node.
    pub(crate) fn remains(&self) -> Vec<String> {
        let names = |path: PathBuf| {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string())
        };
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = self.directory.to_str().unwrap().to_owned();
        let mounts = mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned);
        let run = &self.runtime_config.run_dir;
        names(self.node_dir().join("pods"))
            .chain(names(self.node_dir().join("logs")))
            .chain(names(run.join("containers")))
            .chain(mounts)
            .collect()
    }

    pub(crate) fn fabric_netns(&self) -> NetNs {
        self.fabric.namespace().unwrap()
    }

    pub(crate) fn client_identity(&self, organization: &str) -> Rotating {
        identity(&self.authority, &leaf("somebody", organization))
    }

    async fn end(mut self) {
        if self.kubelet.is_some() {
            self.stop_kubelet().await;
        }
    }

    fn traces(&self) -> Traces {
        Traces {
            name: self.name.clone(),
            runtime: self.runtime_config.clone(),
            root: self.root.clone(),
            tasks: self.tasks.clone(),
        }
    }
}

/// What a world leaves if nobody clears it.
struct Traces {
    name: String,
    runtime: RuntimeConfig,
    root: CancellationToken,
    tasks: TaskTracker,
}

impl Traces {
    async fn clear(self) {
        // A kubelet that still ran would start again what is removed here.
        self.root.cancel();
        self.tasks.close();
        tokio::time::timeout(SOON, self.tasks.wait()).await.unwrap();
        let runtime = Runtime::open(self.runtime.clone()).await.unwrap();
        for sandbox in runtime.list_sandboxes().await.unwrap() {
            runtime.remove_sandbox(&sandbox.spec.uid).await.unwrap();
        }
        Fabric::remove(&self.name, &self.runtime.run_dir).unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let top = hierarchy.path().join(&self.name);
            let _absent = fs::remove_dir(top.join("node1"));
            let _absent = fs::remove_dir(top);
        }
    }
}

/// Runs `test` on a thread in namespaces of its own.
pub(crate) fn isolated<F: Future<Output = World>>(test: impl FnOnce(World) -> F + Send) {
    base_tls::install_default_provider();
    let log = tracing_subscriber::fmt().with_env_filter("warn,cluster_kubelet=debug").with_test_writer();
    let _second = log.try_init();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("these tests make namespaces: run them as root");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let (temporary, world) = World::build().await;
                let traces = world.traces();
                let test = async { tokio::time::timeout(SOON * 6, test(world)).await.unwrap().end().await };
                let result = AssertUnwindSafe(test).catch_unwind().await;
                traces.clear().await;
                drop(temporary);
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The versioned kubectl binaries of this machine.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let places = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/usr/bin"];
    let versions = ["1.30", "1.31", "1.32", "1.33"];
    let paths = versions
        .iter()
        .flat_map(|version| places.map(|place| Path::new(place).join(format!("kubectl.{version}"))));
    paths.filter(|path| path.exists()).collect()
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "waited in vain for {what}");
}

/// The status of a pod's condition; empty when it has none.
pub(crate) fn condition(pod: &Pod, kind: &str) -> String {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == kind).map(|one| one.status.clone()).unwrap_or_default()
}

/// The pod's phase.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The status of a container as JSON.
pub(crate) fn container(pod: &Pod, name: &str) -> Value {
    let status = serde_json::to_value(&pod.status).unwrap();
    ["containerStatuses", "initContainerStatuses"]
        .iter()
        .filter_map(|list| status[list].as_array())
        .flatten()
        .find(|one| one["name"] == name)
        .cloned()
        .unwrap_or_default()
}

/// A container of the probe that does `words`.
pub(crate) fn does(name: &str, words: &str) -> Value {
    let args: Vec<_> = words.split_whitespace().collect();
    json!({"name": name, "image": IMAGE, "args": args})
}

/// `base` with the fields of `more`.
pub(crate) fn with(mut base: Value, more: Value) -> Value {
    let (Value::Object(fields), Value::Object(more)) = (&mut base, more) else {
        panic!("objects are needed")
    };
    fields.extend(more);
    base
}

fn shown(value: &impl Debug) -> String {
    format!("{value:#?}").lines().filter(|line| !line.contains("None")).collect::<Vec<_>>().join("\n")
}

fn leaf(common_name: &str, organization: &str) -> LeafProfile {
    LeafProfile {
        common_name: Some(common_name.into()),
        organization: Some(organization.into()),
        client: true,
        lifetime: Duration::from_secs(3600),
        ..LeafProfile::default()
    }
}

fn identity(authority: &CertificateAuthority, profile: &LeafProfile) -> Rotating {
    let issued = authority.issue(profile).unwrap();
    let roots = Roots::from_pem(authority.certificate_pem()).unwrap();
    Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, Some(roots)).unwrap())
}

/// Starts an API server on loopback and answers a client that may do everything.
async fn api_server(
    directory: &Path,
    fabric: &Fabric,
    authority: &CertificateAuthority,
    shutdown: CancellationToken,
) -> Client {
    let store =
        cluster_store::Embedded::open(&directory.join("store"), cluster_store::Options::default()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let loopback = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let (key, _) = base_tls::generate_key_pem().unwrap();
    let config = cluster_apiserver::Config {
        store,
        listeners: vec![listener],
        identity: identity(
            authority,
            &LeafProfile { server: true, addresses: loopback, ..leaf("api", "test") },
        ),
        kubelet_client_identity: identity(authority, &leaf("api", "system:masters")),
        ca_pem: authority.certificate_pem().into(),
        service_account_key: key.to_string(),
        service_account_issuer: "https://kubernetes.default.svc".into(),
        dialer: Arc::new(FromFabric(fabric.namespace().unwrap())),
        advertise: address,
        version: "v1.34.0+test".into(),
    };
    tokio::spawn(async move { cluster_apiserver::run(config, shutdown).await.unwrap() });
    let admin = authority.issue(&leaf("admin", "system:masters")).unwrap();
    let kubeconfig = kubeconfig(address, authority, &admin.chain_pem, &admin.key_pem);
    let file = serde_json::to_string(&kubeconfig).unwrap();
    fs::write(directory.join("kubeconfig"), file).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    eventually("the API server", async || client.apiserver_version().await.is_ok()).await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    eventually("namespace default", async || {
        namespaces.get_opt("default").await.is_ok_and(|found| found.is_some())
    })
    .await;
    client
}

fn kubeconfig(address: SocketAddr, authority: &CertificateAuthority, chain: &str, key: &str) -> Kubeconfig {
    Kubeconfig {
        clusters: vec![NamedCluster {
            name: "test".into(),
            other: Default::default(),
            cluster: Some(Cluster {
                server: Some(format!("https://{address}")),
                certificate_authority_data: Some(STANDARD.encode(authority.certificate_pem())),
                ..Cluster::default()
            }),
        }],
        auth_infos: vec![NamedAuthInfo {
            name: "admin".into(),
            other: Default::default(),
            auth_info: Some(AuthInfo {
                client_certificate_data: Some(STANDARD.encode(chain)),
                client_key_data: Some(STANDARD.encode(key).into()),
                ..AuthInfo::default()
            }),
        }],
        contexts: vec![NamedContext {
            name: "test".into(),
            other: Default::default(),
            context: Some(Context {
                cluster: "test".into(),
                user: Some("admin".into()),
                ..Context::default()
            }),
        }],
        current_context: Some("test".into()),
        ..Kubeconfig::default()
    }
}

/// A `docker save` archive with nothing but the probe.
fn probe_image() -> Vec<u8> {
    let tar = |files: &[(&str, u32, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, mode, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, name, *data).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let layer = tar(&[("probe", 0o755, &fs::read(PROBE).unwrap())]);
    let digest: String =
        <sha2::Sha256 as sha2::Digest>::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/probe"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [IMAGE, "mesh.test/probe:2"], "Layers": ["layer.tar"]}]);
    tar(&[
        ("config.json", 0o644, config.to_string().as_bytes()),
        ("layer.tar", 0o644, &layer),
        ("manifest.json", 0o644, manifest.to_string().as_bytes()),
    ])
}
