//! Processes that end with the test that started them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::Spec;

/// A child process, killed with its own children when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Program {
    /// Starts `command`, which will listen on `address`, and waits until it does.
    ///
    /// # Errors
    /// If it cannot be started, ends, or does not listen within 20 seconds.
    pub fn listening(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} could not be started"))?;
        let mut program = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            if let Some(status) = program.child.try_wait()? {
                bail!("{name} ended before it listened: {status}");
            }
            ensure!(Instant::now() < deadline, "{name} does not listen on {address}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(program)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = i32::try_from(self.child.id()).map(|id| killpg(Pid::from_raw(id), Signal::SIGKILL));
        let _ = self.child.wait();
    }
}

/// A sidecar with a configuration of its own, in a process of its own.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    _stdin: ChildStdin,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Sidecar {
    /// Starts `program` (the path of `sidecar-under-test`), in the memory cgroup of the `tasks` file if one is given.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(program: &str, spec: &Spec, tasks: Option<&Path>) -> Result<Self> {
        let spec = serde_json::to_string(spec)?;
        let mut command = match tasks {
            None => Command::new(program),
            Some(tasks) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"echo $$ >"$0" && exec "$@""#]).arg(tasks).arg(program);
                shell
            }
        };
        let mut child = command.arg(spec).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let mut addresses = BTreeMap::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line == "ready" {
                return Ok(Self { child, _stdin: stdin, addresses });
            }
            let (name, address) = line.split_once(' ').context("a line without an address")?;
            addresses.insert(name.to_owned(), address.parse()?);
        }
        bail!("the sidecar ended before it was ready: {}", child.wait()?)
    }

    /// The address of a listener.
    ///
    /// # Panics
    /// If there is none of that name: the test is wrong.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has ended")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Fails if the process has ended, saying how.
    ///
    /// # Errors
    /// If it has.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the sidecar ended: {status}"),
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
