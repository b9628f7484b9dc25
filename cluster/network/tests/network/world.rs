//! A private machine for one test: its own network, with an uplink whose every packet is counted, and its own mounts.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster_network::{Fabric, FabricConfig, Interception, NetNs, PodNet, PodNetRequest, PodNetwork};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No answer inside one machine takes this long.
pub const SOON: Duration = Duration::from_secs(3);

/// A fabric with two nodes on the private machine.
pub struct World {
    pub name: String,
    pub run_dir: PathBuf,
    pub host: NetNs,
    pub fabric: Fabric,
    uplink: NetNs,
    _directory: tempfile::TempDir,
}

impl World {
    fn build(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        let name = format!("t{}-{name}", std::process::id());
        let host = NetNs::current().unwrap();
        // What the machine's uplink is: an address, a default route, and somebody at the other end who counts.
        let uplink = host
            .run_blocking(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                NetNs::current().unwrap()
            })
            .unwrap();
        ip(&["link", "set", "lo", "up"]);
        let here = nix::unistd::gettid().to_string();
        uplink
            .run_blocking(|| {
                ip(&["link", "add", "uplink", "type", "veth", "peer", "name", "world"]);
                ip(&["link", "set", "uplink", "netns", &here]);
                ip(&["link", "set", "world", "up"]);
            })
            .unwrap();
        ip(&["addr", "add", "192.0.2.2/24", "dev", "uplink"]);
        ip(&["link", "set", "uplink", "up"]);
        ip(&["route", "add", "default", "via", "192.0.2.1"]);
        let config = FabricConfig { name: name.clone(), run_dir: run_dir.clone(), nodes: 2 };
        let fabric = Fabric::ensure(&config).unwrap();
        Self { name, run_dir, host, fabric, uplink, _directory: directory }
    }

    pub fn node(&self, index: usize) -> NetNs {
        NetNs::open(&self.fabric.nodes()[index - 1].net_ns).unwrap()
    }

    pub fn pods(&self, index: usize) -> PodNetwork {
        PodNetwork::open(&self.fabric, &format!("node{index}")).unwrap()
    }

    pub async fn pod(&self, index: usize, name: &str, interception: Option<Interception>) -> PodNet {
        self.pods(index).setup(request(name, interception)).await.unwrap()
    }

    /// IPv4 packets and address requests that have left over the uplink. (IPv6 announces itself when a link comes up.)
    pub fn leaked(&self) -> u64 {
        let read = || {
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
            let line = snmp.lines().filter(|line| line.starts_with("Ip:")).nth(1).unwrap();
            line.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap()
        };
        let asked = self.host.run_blocking(|| {
            let output = Command::new("ip").args(["neigh", "show", "dev", "uplink"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.contains("fe80")).count()
        });
        self.uplink.run_blocking(read).unwrap() + asked.unwrap() as u64
    }
}

impl Drop for World {
    fn drop(&mut self) {
        Fabric::remove(&self.name, &self.run_dir).unwrap();
    }
}

/// Runs `test` on a thread in namespaces of its own.
pub fn isolated<F: Future<Output = ()>>(name: &str, test: impl FnOnce(World) -> F + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("these tests make network namespaces: run them as root");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime
                .block_on(async { tokio::time::timeout(SOON * 10, test(World::build(name))).await })
                .unwrap();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub fn request(name: &str, interception: Option<Interception>) -> PodNetRequest {
    PodNetRequest {
        uid: format!("uid-{name}"),
        namespace: "default".into(),
        name: name.into(),
        interception,
        host_network: false,
    }
}

/// Runs `ip` in the calling thread's namespace and returns what it prints.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("`ip` is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn namespace(pod: &PodNet) -> NetNs {
    NetNs::open(&pod.net_ns).unwrap()
}

pub fn address(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

pub async fn connect(from: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    tokio::time::timeout(SOON, from.connect(to))
        .await
        .unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
}

/// A server that greets every connection with `greeting`.
pub async fn greeter(at: &NetNs, port: u16, greeting: &'static str) {
    let listener = at.listen(address(Ipv4Addr::UNSPECIFIED, port)).await.unwrap();
    tokio::spawn(greet(listener, greeting));
}

async fn greet(listener: TcpListener, greeting: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _closed = stream.write_all(greeting.as_bytes()).await;
    }
}

/// Connects and returns the greeting.
pub async fn greeting(from: &NetNs, to: SocketAddr) -> io::Result<String> {
    read(connect(from, to).await?).await
}

pub async fn read(mut stream: TcpStream) -> io::Result<String> {
    let mut text = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut text)).await??;
    Ok(text)
}

pub fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
