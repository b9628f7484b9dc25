//! A node to test on: directories, cgroups, an image with the probe, and their removal whatever happens.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cluster_containers::{
    ContainerId, ContainerSpec, ContainerState, Exit, Image, Runtime, RuntimeConfig, SandboxSpec,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_container-probe");
pub(crate) const IMAGE: &str = "mesh.test/probe:1";
pub(crate) const SECONDS_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) config: RuntimeConfig,
    attempts: AtomicU32,
}

// === impl Node ===

impl Node {
    /// A node with the probe's image and one sandbox called `pod`.
    pub(crate) async fn start() -> Self {
        Self::with(SandboxSpec::default()).await
    }

    pub(crate) async fn with(sandbox: SandboxSpec) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = RuntimeConfig {
            data_dir: dir.path().join("data"),
            run_dir: dir.path().join("run"),
            cgroup_parent: format!("{name}/node1"),
            shim: PROBE.into(),
            shim_args: vec!["shim".into()],
        };
        let runtime = Runtime::open(config.clone()).await.unwrap();
        let node = Self { dir, runtime, config, attempts: AtomicU32::new(0) };
        node.load(&probe_image()).await;
        let spec = SandboxSpec { uid: "pod".into(), hostname: "web-0".into(), ..sandbox };
        node.runtime.create_sandbox(spec).await.unwrap();
        node
    }

    pub(crate) async fn load(&self, archive: &[u8]) -> Vec<Image> {
        self.runtime.images().load(std::io::Cursor::new(archive.to_vec())).await.unwrap()
    }

    /// A container of the probe that does `words`.
    pub(crate) fn spec(&self, words: &str) -> ContainerSpec {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        ContainerSpec {
            name: "app".into(),
            pod_uid: "pod".into(),
            attempt,
            image: IMAGE.into(),
            args: words.split_whitespace().map(str::to_owned).collect(),
            log_path: self.dir.path().join(format!("logs/app/{attempt}.log")),
            ..ContainerSpec::default()
        }
    }

    pub(crate) async fn launch(&self, spec: ContainerSpec) -> ContainerId {
        let id = self.runtime.create_container(spec).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a container to its end; its exit and what it printed.
    pub(crate) async fn run(&self, spec: ContainerSpec) -> (Exit, String) {
        let path = spec.log_path.clone();
        let id = self.launch(spec).await;
        let exit = self.ended(&id).await;
        (exit, printed(&path))
    }

    pub(crate) async fn run_words(&self, words: &str) -> (Exit, String) {
        self.run(self.spec(words)).await
    }

    pub(crate) async fn ended(&self, id: &ContainerId) -> Exit {
        let mut events = self.runtime.events();
        let deadline = tokio::time::Instant::now() + SECONDS_MAX;
        loop {
            let status = self.runtime.container_status(id).await.unwrap();
            if let ContainerState::Exited(exit) = status.state {
                return exit;
            }
            let waited = tokio::time::timeout_at(deadline, events.recv()).await;
            assert!(waited.is_ok(), "container still is {:?}", status.state);
        }
    }

    /// Waits until the log contains `text`.
    pub(crate) async fn logged(&self, path: &Path, text: &str) {
        wait_for(&format!("\"{text}\" in the log"), || printed(path).contains(text)).await;
    }

    /// Opens a second runtime on the same directories.
    pub(crate) async fn reopen(&mut self) {
        self.runtime = Runtime::open(self.config.clone()).await.unwrap();
    }

    /// The cgroup directories that still exist for this node.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let top = self.config.cgroup_parent.split('/').next().unwrap();
        let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().join(top));
        mounts.chain([Path::new("/sys/fs/cgroup").join(top)]).filter(|path| path.exists()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let config = self.config.clone();
        // On a thread of its own: the test's runtime may be the one that is being dropped.
        let cleaned = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(async {
                let runtime = Runtime::open(config).await.unwrap();
                for sandbox in runtime.list_sandboxes().await.unwrap() {
                    runtime.remove_sandbox(&sandbox.spec.uid).await.unwrap();
                }
            });
        })
        .join();
        for dir in self.cgroups() {
            let _ = fs::remove_dir(dir.join("node1"));
            let _ = fs::remove_dir(dir);
        }
        if !std::thread::panicking() {
            cleaned.unwrap();
            assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "mounts are left");
        }
    }
}

/// A network namespace bound to a file.
pub(crate) struct Network {
    pub(crate) path: PathBuf,
    _dir: tempfile::TempDir,
}

// === impl Network ===

impl Network {
    pub(crate) fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        fs::write(&path, "").unwrap();
        let made = Command::new("unshare").arg(format!("--net={}", path.display())).arg("true").status();
        assert!(made.unwrap().success());
        Self { path, _dir: dir }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// The lines of a log without time and stream.
pub(crate) fn printed(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "{}", line.splitn(4, ' ').nth(3).unwrap_or_default());
        out
    })
}

/// Waits for a condition.
pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SECONDS_MAX, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One entry of a layer.
pub(crate) enum Item<'a> {
    File(&'a str, u32, &'a [u8]),
    Dir(&'a str, u32),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
}

/// A layer as an uncompressed tar. Names are written as they are, however wrong.
pub(crate) fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1);
        let (name, mode, kind, data, link) = match item {
            Item::File(name, mode, data) => (name, *mode, tar::EntryType::Regular, *data, ""),
            Item::Dir(name, mode) => (name, *mode, tar::EntryType::Directory, &b""[..], ""),
            Item::Symlink(name, target) => (name, 0o777, tar::EntryType::Symlink, &b""[..], *target),
            Item::Hardlink(name, target) => (name, 0o644, tar::EntryType::Link, &b""[..], *target),
        };
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        // Raw, because the library would refuse the hostile ones.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The image's configuration document.
pub(crate) fn config(layers: &[Vec<u8>], process: &serde_json::Value) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The files of an OCI layout with gzipped layers.
pub(crate) fn oci(name: &str, layers: &[Vec<u8>], process: &serde_json::Value) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut add = |kind: &str, data: Vec<u8>| {
        let digest = digest(&data);
        let descriptor = serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"), "size": data.len(),
        });
        files.push((format!("blobs/sha256/{digest}"), data));
        descriptor
    };
    let config = add("config.v1+json", config(layers, process));
    let layers: Vec<_> = layers.iter().map(|layer| add("layer.v1.tar+gzip", gzip(layer))).collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut manifest = add("manifest.v1+json", serde_json::to_vec(&manifest).unwrap());
    manifest["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    files
}

/// What `docker save` writes, with plain layers.
pub(crate) fn docker(name: &str, layers: &[Vec<u8>], process: &serde_json::Value) -> Vec<(String, Vec<u8>)> {
    let config = config(layers, process);
    let config_name = format!("{}.json", digest(&config));
    let mut files = vec![(config_name.clone(), config)];
    let names: Vec<_> = layers.iter().map(|layer| format!("{}/layer.tar", digest(layer))).collect();
    files.extend(names.iter().cloned().zip(layers.iter().cloned()));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    files.push(("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()));
    files
}

/// An image with nothing but the probe and a user database.
pub(crate) fn probe_image() -> Vec<u8> {
    let probe = fs::read(PROBE).unwrap();
    let base = layer(&[
        Item::Dir("etc", 0o755),
        Item::File("etc/passwd", 0o644, b"root:x:0:0::/root:/\nweb:x:1000:1001::/:/\n"),
        Item::File("etc/group", 0o644, b"web:x:1001:\nextra:x:1002:web\n"),
        Item::Dir("tmp", 0o1777),
        Item::File("data", 0o644, b"not a program"),
    ]);
    let program = layer(&[Item::File("probe", 0o755, &probe)]);
    let process =
        serde_json::json!({"Entrypoint": ["/probe"], "Cmd": ["print", "hello"], "Env": ["FROM=image"]});
    archive(&oci(IMAGE, &[base, program], &process))
}
