//! A server with a store in a temporary directory, certificates of its own, and clients for it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use base_tls::{CertificateAuthority, Issued, LeafProfile, Material, Roots, Rotating};
use cluster_apiserver::{Config, Dialer};
use cluster_store::{Embedded, Store};
use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// One running server. Dropping it stops the server and removes its files.
pub struct Server {
    pub address: SocketAddr,
    pub ca: CertificateAuthority,
    pub directory: tempfile::TempDir,
    pub store: Arc<dyn Store>,
    shutdown: CancellationToken,
}

/// Dials loopback only, whatever address is asked for: the tests' pods all live there.
struct Loopback;

impl Dialer for Loopback {
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(SocketAddr::new([127, 0, 0, 1].into(), addr.port())))
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Server {
    pub async fn start() -> Self {
        base_tls::install_default_provider();
        let directory = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::generate("test", "test", DAY).unwrap();
        let store: Arc<dyn Store> =
            Embedded::open(&directory.path().join("store"), cluster_store::Options::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = issue(&ca, "kube-apiserver", None, true);
        let kubelet_client = issue(&ca, "kube-apiserver-kubelet-client", Some("system:masters"), false);
        let shutdown = CancellationToken::new();
        let config = Config {
            store: Arc::clone(&store),
            listeners: vec![listener],
            identity: rotating(&ca, &server),
            kubelet_client_identity: rotating(&ca, &kubelet_client),
            ca_pem: ca.certificate_pem().to_owned(),
            service_account_key: base_tls::generate_key_pem().unwrap().0.to_string(),
            service_account_issuer: "https://kubernetes.default.svc".to_owned(),
            dialer: Arc::new(Loopback),
            advertise: address,
            version: "v1.33.4+mesh".to_owned(),
        };
        let stop = shutdown.clone();
        tokio::spawn(async move { cluster_apiserver::run(config, stop).await.unwrap() });
        let server = Self { address, ca, directory, store, shutdown };
        server.write_kubeconfig("admin", Some("system:masters"));
        server
    }

    fn write_kubeconfig(&self, user: &str, group: Option<&str>) {
        let issued = issue(&self.ca, user, group, false);
        let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster:\n    server: https://{}\n    \
             certificate-authority-data: {}\ncontexts:\n- name: test\n  context: {{cluster: test, user: {user}}}\nusers:\n- name: {user}\n  \
             user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            self.address,
            encode(self.ca.certificate_pem()),
            encode(&issued.chain_pem),
            encode(&issued.key_pem),
        );
        std::fs::write(self.kubeconfig_of(user), text).unwrap();
    }

    fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.directory.path().join(format!("{user}.kubeconfig"))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of("admin")
    }

    /// A client with a certificate of that user and group.
    pub async fn client_as(&self, user: &str, group: Option<&str>) -> kube::Client {
        self.write_kubeconfig(user, group);
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig_of(user)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// A client that may do everything, once the server answers.
    pub async fn client(&self) -> kube::Client {
        let client = self.client_as("admin", Some("system:masters")).await;
        eventually("the server answers", async || client.apiserver_version().await.ok()).await;
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn issue(ca: &CertificateAuthority, user: &str, group: Option<&str>, server: bool) -> Issued {
    let profile = LeafProfile {
        common_name: Some(user.to_owned()),
        organization: group.map(str::to_owned),
        dns_names: if server { vec!["localhost".to_owned(), "kubernetes".to_owned()] } else { Vec::new() },
        addresses: if server { vec![[127, 0, 0, 1].into()] } else { Vec::new() },
        spiffe_id: None,
        server,
        client: !server,
        lifetime: DAY,
    };
    ca.issue(&profile).unwrap()
}

/// A server certificate for these names, for fakes that the server dials.
pub fn server_identity(ca: &CertificateAuthority, names: &[&str]) -> Rotating {
    let profile = LeafProfile {
        common_name: Some(names[0].to_owned()),
        dns_names: names.iter().map(|n| (*n).to_owned()).collect(),
        addresses: vec![[127, 0, 0, 1].into()],
        server: true,
        lifetime: DAY,
        ..LeafProfile::default()
    };
    rotating(ca, &ca.issue(&profile).unwrap())
}

fn rotating(ca: &CertificateAuthority, issued: &Issued) -> Rotating {
    let roots = Roots::from_pem(ca.certificate_pem()).unwrap();
    Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, Some(roots)).unwrap())
}

/// Waits until `check` yields something, for at most twenty seconds.
pub async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The versioned kubectl binaries of this machine.
pub fn kubectls() -> Vec<PathBuf> {
    let directories = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/usr/bin"];
    let versions = ["1.30", "1.31", "1.32", "1.33"];
    let candidates = versions.iter().filter_map(|version| {
        directories
            .iter()
            .map(|d| PathBuf::from(d).join(format!("kubectl.{version}")))
            .find(|path| path.exists())
    });
    candidates.collect()
}

/// A kubectl bound to a server.
pub struct Kubectl<'a> {
    pub binary: PathBuf,
    pub server: &'a Server,
}

impl Kubectl<'_> {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_clear().env("HOME", self.server.directory.path());
        command.env("KUBECONFIG", self.server.kubeconfig());
        command
    }

    /// Runs a command without blocking the server's threads.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The output of a command that must succeed.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{:?} {arguments:?}\n{out}\n{err}", self.binary);
        out.into_owned()
    }

    /// The error of a command that must fail.
    pub async fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "{:?} {arguments:?} succeeded", self.binary);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Applies a manifest.
    pub async fn apply(&self, name: &str, manifest: &str, more: &[&str]) -> String {
        let path = self.server.directory.path().join(name);
        std::fs::write(&path, manifest).unwrap();
        let path = path.to_string_lossy().into_owned();
        let mut arguments = vec!["apply", "-f", path.as_str()];
        arguments.extend(more);
        self.ok(&arguments).await
    }
}
