//! A client in its surroundings: files, an authority, and what it has put into force.

use base_runtime::TaskGroup;
use base_tls::CertificateAuthority;
use parking_lot::Mutex;
use sidecar_model::Snapshot;
use sidecar_xds::{Config, Handle, Node, Protocol, start};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tests_support::control::ControlPlane;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct World {
    pub directory: tempfile::TempDir,
    pub ca: Arc<CertificateAuthority>,
}

pub struct Client {
    pub handle: Handle,
    pub tasks: TaskGroup,
    /// Every snapshot that was put into force, in order.
    pub applied: Arc<Mutex<Vec<Arc<Snapshot>>>>,
}

// === impl World ===

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::generate("root", "mesh", Duration::from_secs(86_400)).unwrap();
        std::fs::write(directory.path().join("root.pem"), ca.certificate_pem()).unwrap();
        std::fs::write(directory.path().join("token"), "token-1\n").unwrap();
        Self { directory, ca: Arc::new(ca) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn control_plane(&self, port: u16) -> ControlPlane {
        ControlPlane::start(&self.ca, port, "localhost").await
    }

    pub fn client(&self, port: u16) -> Client {
        self.client_of(port, Protocol::Delta)
    }

    pub fn client_of(&self, port: u16, protocol: Protocol) -> Client {
        let config = Config {
            discovery_address: format!("localhost:{port}"),
            protocol,
            root_cert: self.path("root.pem"),
            token: self.path("token"),
            node: Node {
                id: "sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local".into(),
                cluster: "reviews.default".into(),
                metadata: serde_json::json!({"NAMESPACE": "default"}),
                ..Node::default()
            },
            state_dir: Some(self.directory.path().to_owned()),
            trust_domain: "cluster.local".into(),
            namespace: "default".into(),
            service_account: "reviews".into(),
            certificate_ttl: Duration::from_secs(86_400),
        };
        let tasks = TaskGroup::new(CancellationToken::new());
        let applied = Arc::new(Mutex::new(Vec::new()));
        let sink = applied.clone();
        let handle = start(config, &tasks, move |snapshot| sink.lock().push(snapshot.clone()));
        Client { handle, tasks, applied }
    }
}

// === impl Client ===

impl Client {
    /// The first snapshot, from now on, that `pick` accepts.
    pub async fn snapshot(&mut self, what: &str, pick: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let found = tokio::time::timeout(DEADLINE, self.handle.snapshots.wait_for(|snapshot| pick(snapshot)));
        match found.await {
            Ok(snapshot) => snapshot.expect("the client runs").clone(),
            Err(_) => panic!("no snapshot with {what}; status: {:#?}", self.handle.status.view()),
        }
    }

    /// Waits until `is_so`.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Handle) -> bool) {
        let mut every = tokio::time::interval(Duration::from_millis(5));
        let waited = tokio::time::timeout(DEADLINE, async {
            while !is_so(&self.handle) {
                every.tick().await;
            }
        });
        assert!(waited.await.is_ok(), "not {what}; status: {:#?}", self.handle.status.view());
    }

    pub async fn stop(self) {
        assert_eq!(self.tasks.shutdown(DEADLINE).await, 0);
    }
}
