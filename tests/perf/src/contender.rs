//! Pairs of proxies under measurement: started on their core, stopped when dropped.

use crate::resources::{Identity, Ports, Resources};
use crate::system;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Core of the proxies.
const CORE: &str = "0";
/// A proxy must answer this long after its start.
const DEADLINE: Duration = Duration::from_secs(30);

/// Two proxies: beside the client, beside the application.
#[derive(Debug)]
pub struct Contender {
    pub name: &'static str,
    pub version: String,
    pub ports: Ports,
    /// From the start of both to the first answer through both.
    pub first_answer: Duration,
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// === impl Contender ===

impl Contender {
    /// Two of our sidecars, fed by the control plane on `control`; `dir` holds `root.pem` and `token`.
    pub fn sidecars(program: &Path, dir: &Path, control: u16, ports: Ports) -> Result<Self> {
        let start = |index: u16, pod: &str| {
            let mut command = pinned(program);
            let first = 25_000 + 10 * index;
            command.args(["proxy", "sidecar", "--concurrency", "1"]);
            for (flag, port) in
                [("--admin-port", 0), ("--status-port", 1), ("--health-port", 2), ("--metrics-port", 3)]
            {
                command.args([flag, &(first + port).to_string()]);
            }
            command.arg("--root-cert").arg(dir.join("root.pem"));
            command.arg("--token").arg(dir.join("token"));
            command.arg("--pod-info").arg(dir.join("none")).arg("--state-dir").arg(dir.join("none"));
            command
                .env("DISCOVERY_ADDRESS", format!("localhost:{control}"))
                .env("POD_NAME", pod)
                .env("POD_NAMESPACE", "default")
                .env("INSTANCE_IP", "127.0.0.1")
                .env("ISTIO_META_WORKLOAD_NAME", pod)
                .env("LOG_LEVEL", "warn");
            spawn(command, &dir.join(format!("{pod}.log")))
        };
        let started = Instant::now();
        let processes = vec![start(0, "outbound")?, start(1, "inbound")?];
        let first_answer = answering(&ports, started, &processes)?;
        Ok(Self { name: "ours", version: version(program)?, ports, first_answer, processes })
    }

    /// Two Envoys with the same resources.
    pub fn envoys(program: &Path, dir: &Path, ports: Ports, identities: [&Identity; 2]) -> Result<Self> {
        let start = |name: &str, resources: &Resources| {
            let config = dir.join(format!("envoy-{name}.pb"));
            std::fs::write(&config, resources.bootstrap())?;
            let mut command = pinned(program);
            command.arg("--config-path").arg(config);
            command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]);
            spawn(command, &dir.join(format!("envoy-{name}.log")))
        };
        let [client, server] = identities;
        let (outbound, inbound) =
            (Resources::outbound(client, &ports, false), Resources::inbound(server, &ports, false));
        let started = Instant::now();
        let processes = vec![start("outbound", &outbound)?, start("inbound", &inbound)?];
        let first_answer = answering(&ports, started, &processes)?;
        Ok(Self { name: "Envoy", version: version(program)?, ports, first_answer, processes })
    }

    /// Processor time of both proxies, in microseconds.
    pub fn cpu_microseconds(&self) -> Result<u64> {
        self.processes.iter().map(|process| system::cpu_microseconds(process.0.id())).sum()
    }

    /// Memory of each proxy.
    pub fn memory(&self) -> Result<Vec<system::Memory>> {
        self.processes.iter().map(|process| system::memory(process.0.id())).collect()
    }
}

fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", CORE]).arg(program);
    command
}

/// `taskset` becomes the program, under the same identifier.
fn spawn(mut command: Command, log: &Path) -> Result<Process> {
    let log = File::create(log)?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Process(child.context("cannot start a proxy")?))
}

/// Waits for an answer on every listener; how long the first way took.
fn answering(ports: &Ports, started: Instant, processes: &[Process]) -> Result<Duration> {
    let mut first = Duration::ZERO;
    for port in [ports.mesh_h2, ports.mesh_h1, ports.one_hop] {
        while let Err(error) = ask(port) {
            if started.elapsed() > DEADLINE {
                bail!("a proxy does not answer on {port}: {error:#}; processes {processes:?}");
            }
            std::thread::yield_now();
        }
        if first.is_zero() {
            first = started.elapsed();
        }
    }
    Ok(first)
}

fn ask(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{}", answer.lines().next().unwrap_or_default());
    Ok(())
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(line.rsplit("version: ").next().unwrap_or(line).trim().to_owned())
}
