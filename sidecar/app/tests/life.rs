//! The life of real processes: restarts without a control plane, upgrades under load, too little memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use base_tls::CertificateAuthority;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::{any, cluster, hcm, listener, protobuf, route, router};
use tests_support::resources::{load_assignment, socket};
use tests_support::world::World as ControlPlane;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(40);
const POD: &str = "reviews-1";

/// Ports that nobody listens on and no client is given by the system: they must stay free while a sidecar is down.
fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let base = usize::try_from(std::process::id()).unwrap() * 64;
    std::array::from_fn(|_| {
        let mut ports = (0..20_000).map(|_| 10_000 + (base + NEXT.fetch_add(1, SeqCst)) % 20_000);
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        ports.find_map(|port| u16::try_from(port).ok().filter(free)).unwrap()
    })
}

/// These tests measure times and fill the machine: one after the other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn cluster_of(app: SocketAddr) -> protobuf::Any {
    let load_assignment = Some(load_assignment("app", &[app]));
    any(&cluster::Cluster { name: "app".into(), load_assignment, ..Default::default() })
}

fn listener_at(port: u16) -> protobuf::Any {
    let action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster("app".into())),
        ..Default::default()
    };
    let all = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![all],
        ..Default::default()
    };
    let routes =
        route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(&router::Router::default()))),
        ..Default::default()
    };
    let manager = any(&hcm::HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![router],
        ..Default::default()
    });
    let filter = listener::Filter {
        name: "hcm".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(manager)),
    };
    any(&listener::Listener {
        name: "in".into(),
        address: Some(socket((Ipv4Addr::LOCALHOST, port).into())),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    })
}

/// An application that answers `ok` once it has the whole request.
async fn app() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
                // A client that breaks off gets no answer.
                request.into_body().collect().await?;
                Ok::<_, hyper::Error>(hyper::Response::new(Full::new(Bytes::from_static(b"ok"))))
            });
            let serving = hyper::server::conn::http1::Builder::new();
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// A sidecar with a control plane that gives it one listener to one application.
struct World {
    directory: tempfile::TempDir,
    at: SocketAddr,
    ports: [u16; 4],
    control_plane: Option<ControlPlane>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = Arc::new(CertificateAuthority::generate("root", "mesh", Duration::from_secs(3600)).unwrap());
        std::fs::write(directory.path().join("root.pem"), ca.certificate_pem()).unwrap();
        std::fs::write(directory.path().join("token"), "token\n").unwrap();
        let [port, admin, status, health, metrics] = free_ports();
        let control_plane = ControlPlane::start(&ca).await;
        control_plane.set(POD, [cluster_of(app().await), listener_at(port)]);
        let at = (Ipv4Addr::LOCALHOST, port).into();
        let ports = [admin, status, health, metrics];
        Self { directory, at, ports, control_plane: Some(control_plane) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The control plane goes away, and its connections with it.
    fn lose_control_plane(&mut self) {
        self.control_plane = None;
    }

    /// What to start, behind `wrapper` if there is one.
    fn command(&self, wrapper: &[&str], kind: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_sidecar");
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let discovery = self.control_plane.as_ref().map_or(1, |plane| plane.port);
        let [admin, status, health, metrics] = self.ports.map(|port| port.to_string());
        command
            .args(["proxy", kind, "--concurrency", "2"])
            .args(["--admin-port", &admin, "--status-port", &status])
            .args(["--health-port", &health, "--metrics-port", &metrics])
            .arg("--state-dir")
            .arg(self.directory.path())
            .arg("--root-cert")
            .arg(self.path("root.pem"))
            .arg("--token")
            .arg(self.path("token"))
            .env("DISCOVERY_ADDRESS", format!("localhost:{discovery}"))
            .env("POD_NAME", POD)
            .env("INSTANCE_IP", "127.0.0.1")
            .stderr(Stdio::null());
        command
    }

    async fn start(&self, wrapper: &[&str], kind: &str) -> Process {
        let process = Process(self.command(wrapper, kind).spawn().unwrap(), self.path("sidecar.pid"));
        self.answers().await;
        process
    }

    /// Waits until a request gets its answer; how long that took.
    async fn answers(&self) -> Duration {
        let began = Instant::now();
        loop {
            if let Ok(mut stream) = TcpStream::connect(self.at).await
                && ask(&mut stream).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                return began.elapsed();
            }
            assert!(began.elapsed() < DEADLINE, "no answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn upgrade(&self, binary: &str) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
        command.args(["upgrade", "--binary", binary, "--state-dir"]).arg(self.directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    async fn stat(&self, name: &str) -> Option<u64> {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[0]));
        let mut stream = TcpStream::connect(admin).await.ok()?;
        let request = b"GET /stats HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut all = String::new();
        stream.read_to_string(&mut all).await.ok()?;
        all.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": ")?.trim().parse().ok())
    }
}

/// A sidecar, with whatever has taken its place.
struct Process(Child, PathBuf);

impl Process {
    /// The process that serves.
    fn serving(&self) -> Option<i32> {
        std::fs::read_to_string(&self.1).ok()?.parse().ok()
    }

    fn kill_serving(&self) {
        let process = nix::unistd::Pid::from_raw(self.serving().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The first process first: it would start another one.
        let _ = self.0.kill();
        let _ = self.0.wait();
        if let Some(process) = self.serving().map(nix::unistd::Pid::from_raw) {
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// One request on a connection; the answer's head and body, none when it does not come.
async fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.ok()?;
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> Option<String> {
    let (mut all, mut buffer) = (String::new(), [0; 2048]);
    loop {
        let read = stream.read(&mut buffer).await.ok()?;
        all.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let whole = all.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_none_or(|length| body.len() >= length.parse().unwrap())
        });
        if whole {
            return Some(all);
        }
        if read == 0 {
            return None;
        }
    }
}

/// Requests on kept connections until told to stop.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicUsize,
    shed: AtomicUsize,
    lost: AtomicUsize,
}

impl Load {
    fn start(self: &Arc<Self>, at: SocketAddr, clients: usize) -> Vec<tokio::task::JoinHandle<()>> {
        let client = |_| tokio::spawn(Arc::clone(self).client(at));
        (0..clients).map(client).collect()
    }

    async fn client(self: Arc<Self>, at: SocketAddr) {
        let mut kept = None;
        while !self.stop.load(SeqCst) {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => match TcpStream::connect(at).await {
                    Ok(stream) => stream,
                    Err(_) => {
                        self.lost.fetch_add(1, SeqCst);
                        continue;
                    }
                },
            };
            match ask(&mut stream).await {
                None => {
                    self.lost.fetch_add(1, SeqCst);
                }
                Some(answer) => {
                    let good = answer.starts_with("HTTP/1.1 200");
                    let shed = answer.contains("x-envoy-local-overloaded: true");
                    assert!(good || shed, "{answer}");
                    if good { &self.answered } else { &self.shed }.fetch_add(1, SeqCst);
                    kept = Some(stream).filter(|_| !answer.contains("connection: close"));
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for `more` further answers.
    async fn goes_on(&self, more: usize) {
        let (before, began) = (self.answered.load(SeqCst), Instant::now());
        while self.answered.load(SeqCst) < before + more {
            assert!(began.elapsed() < DEADLINE, "the load stands still: {self:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_serves_with_the_last_configuration() {
    let _alone = ALONE.lock().await;
    let mut world = World::new().await;
    let mut process = world.start(&[], "sidecar").await;
    let saved = world.path("last-good.xds");
    let began = Instant::now();
    while !saved.exists() {
        assert!(began.elapsed() < DEADLINE, "nothing is saved");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.lose_control_plane();
    let mut longest = Duration::ZERO;
    for _ in 0..count("MESH_RESTARTS", 20) {
        process.kill();
        process = Process(world.command(&[], "sidecar").spawn().unwrap(), world.path("sidecar.pid"));
        longest = longest.max(world.answers().await);
    }
    println!("longest restart: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

async fn upgrades(kind: &str, times: usize) {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let mut process = world.start(&[], kind).await;
    let load = Arc::new(Load::default());
    let clients = load.start(world.at, 16);
    load.goes_on(50).await;
    let world = Arc::new(world);
    for _ in 0..times {
        let before = process.serving();
        let asked = Arc::clone(&world);
        assert!(tokio::task::spawn_blocking(move || asked.upgrade("")).await.unwrap());
        assert_ne!(process.serving(), before);
        load.goes_on(50).await;
    }
    let before = process.serving();
    let asked = Arc::clone(&world);
    assert!(!tokio::task::spawn_blocking(move || asked.upgrade("/bin/false")).await.unwrap());
    assert_eq!(process.serving(), before, "a binary that does not run changes nothing");
    load.goes_on(50).await;
    load.stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(load.lost.load(SeqCst), 0, "of {}", load.answered.load(SeqCst));
    println!("{kind}: {times} upgrades, {} requests, none lost", load.answered.load(SeqCst));
    // The one that serves is killed: the container's first process starts the old binary again, and is still the same process.
    process.kill_serving();
    world.answers().await;
    assert!(process.0.try_wait().unwrap().is_none());
    let began = Instant::now();
    while process.serving() != i32::try_from(process.0.id()).ok() {
        assert!(began.elapsed() < DEADLINE, "the first process does not serve");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_of_a_sidecar_lose_no_request() {
    upgrades("sidecar", count("MESH_UPGRADES", 6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_of_a_gateway_lose_no_request() {
    upgrades("router", count("MESH_UPGRADES", 6)).await;
}

/// A memory cgroup of either version, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let (base, limit) = match root.join("memory").is_dir() {
            true => (root.join("memory"), "memory.limit_in_bytes"),
            false => (root.to_owned(), "memory.max"),
        };
        let directory = base.join(format!("mesh-sidecar-test-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a memory cgroup needs root and a memory controller");
        std::fs::write(directory.join(limit), bytes.to_string()).unwrap();
        Self(directory)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let began = Instant::now();
        // A process that has just ended is still in it for a moment.
        while std::fs::remove_dir(&self.0).is_err() && began.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
    }
}

/// Begins a request and never ends it; comes back when it is thrown out.
async fn hold(at: SocketAddr) {
    let body = vec![b'x'; 200 << 10];
    let head = format!("POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: {}\r\n\r\n", body.len() + 1);
    loop {
        if let Ok(mut stream) = TcpStream::connect(at).await {
            let sent =
                stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&body).await.is_ok();
            // Until the proxy has had enough of it.
            if sent {
                let _ = stream.read(&mut [0; 1024]).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_memory_sheds_load_and_kills_nobody() {
    let _alone = ALONE.lock().await;
    let world = World::new().await;
    let cgroup = Cgroup::new(64 << 20);
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.0.display());
    let mut process = world.start(&["sh", "-c", &enter, "sh"], "sidecar").await;
    let load = Arc::new(Load::default());
    let clients = load.start(world.at, 8);
    load.goes_on(50).await;
    // Many clients that begin a request, of which the proxy would keep a quarter of a megabyte each, and never end it.
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..count("MESH_ATTACKERS", 600) {
        held.spawn(hold(world.at));
    }
    let began = Instant::now();
    let (mut worst, mut looks) = (0, 0);
    while worst < 85 && began.elapsed() < DEADLINE {
        looks += 1;
        // More and more of them, since what one costs is not the point.
        if looks % 10 == 0 {
            for _ in 0..10 {
                held.spawn(hold(world.at));
            }
        }
        let name = "overload.envoy.resource_monitors.cgroup_memory.pressure";
        worst = worst.max(world.stat(name).await.unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(worst >= 85, "the load was no load: {worst} %");
    load.goes_on(200).await;
    let (good, shed) = (load.answered.load(SeqCst), load.shed.load(SeqCst));
    println!("{} held, {worst} % at worst, {good} answered, {shed} shed", held.len());
    assert!(process.0.try_wait().unwrap().is_none(), "no process was killed");
    drop(held);
    let active = "overload.envoy.overload_actions.reduce_timeouts.active";
    let began = Instant::now();
    while world.stat(active).await != Some(0) {
        assert!(began.elapsed() < DEADLINE, "it does not calm down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    load.goes_on(100).await;
    load.stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    // Connections that are closed for want of memory may cross a request on its way.
    let (lost, good) = (load.lost.load(SeqCst), load.answered.load(SeqCst));
    assert!(lost * 20 <= good, "{lost} lost, {good} answered");
}
