//! In-place upgrade: a new process of a new binary takes over the listening sockets while the old one goes on with its connections.
//!
//! The old process starts the new one with its listening sockets open in it, so that no queue of waiting connections is ever closed. The
//! new one serves once it has configuration and certificate, and says so in a file; only then the old one stops accepting and drains.
//! What goes wrong before that leaves the old process as it was. The container's first process stays, as a [`crate::waiter`].
//! See `docs/adr/0005-upgrade-in-place.md`. A system module: it takes descriptors over by their number.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname, getsockopt, sockopt};

/// Listening sockets that a process was started with: `address=descriptor`, separated by commas.
pub(crate) const LISTENERS: &str = "MESH_INHERITED_LISTENERS";
/// Holds the number of the process that serves.
const PID_FILE: &str = "sidecar.pid";
/// Holds the path of the binary to be started at the next upgrade.
const BINARY_FILE: &str = "upgrade";
/// A new process must serve within this time.
const TAKE_OVER_MAX: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);

/// Listening sockets by address.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(SocketAddr, OwnedFd)>);

impl Inherited {
    /// Takes over what `text`, the value of [`LISTENERS`], names.
    pub(crate) fn read(text: &str) -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let (address, number) = entry.split_once('=').context("a listener is `address=descriptor`")?;
            let number: RawFd = number.parse().context("a descriptor is a number")?;
            anyhow::ensure!(
                listens(number) == Some(address.parse()?),
                "{number} does not listen on {address}"
            );
            sockets.push((address.parse()?, own(number)?));
        }
        Ok(Self(sockets))
    }

    /// The sockets of one address.
    pub(crate) fn take(&mut self, address: SocketAddr) -> Vec<OwnedFd> {
        let (taken, rest) = std::mem::take(&mut self.0).into_iter().partition(|(of, _)| *of == address);
        self.0 = rest;
        Vec::into_iter(taken).map(|(_, socket)| socket).collect()
    }

    /// All that are left.
    pub(crate) fn rest(self) -> Vec<(SocketAddr, OwnedFd)> {
        self.0
    }
}

#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn own(number: RawFd) -> anyhow::Result<OwnedFd> {
    // SAFETY: the process that started this one opened the descriptor for it and names each once; nothing else here has it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // What is started from here gets it only on purpose.
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(socket)
}

/// Where a descriptor listens; none when it is no listening socket.
#[expect(unsafe_code, reason = "descriptors are found by their number")]
fn listens(number: RawFd) -> Option<SocketAddr> {
    // SAFETY: the borrow ends with this function; a number that is no descriptor any more makes the calls fail with EBADF.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    if !getsockopt(&socket, sockopt::AcceptConn).ok()? {
        return None;
    }
    let address: SockaddrStorage = getsockname(number).ok()?;
    let v4 = address.as_sockaddr_in().map(|of| SocketAddr::V4((*of).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|of| SocketAddr::V6((*of).into())))
}

/// Every listening socket of this process, open for a process that is started now.
#[expect(unsafe_code, reason = "descriptors are found by their number")]
fn listening() -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if let Some(address) = listens(number) {
            // SAFETY: as above; the duplicate is this function's own.
            let socket = unsafe { BorrowedFd::borrow_raw(number) };
            found.push((address, nix::unistd::dup(socket)?));
        }
    }
    Ok(found)
}

/// Says that this process serves.
pub(crate) fn announce(directory: &Path) -> io::Result<()> {
    let new = directory.join(format!("{PID_FILE}.{}", std::process::id()));
    fs::write(&new, std::process::id().to_string())?;
    fs::rename(new, directory.join(PID_FILE))
}

/// The process that serves.
pub(crate) fn serving(directory: &Path) -> Option<u32> {
    fs::read_to_string(directory.join(PID_FILE)).ok()?.trim().parse().ok()
}

/// Starts a new process in place of this one and waits until it serves.
pub(crate) async fn start(directory: &Path) -> anyhow::Result<Child> {
    let asked = fs::read_to_string(directory.join(BINARY_FILE)).unwrap_or_default();
    let outcome = replace(directory, &asked).await;
    // Whoever asked sees by this that the answer is there.
    let _ = fs::remove_file(directory.join(BINARY_FILE));
    outcome
}

async fn replace(directory: &Path, asked: &str) -> anyhow::Result<Child> {
    let binary = if asked.is_empty() { PathBuf::from("/proc/self/exe") } else { PathBuf::from(asked) };
    let sockets = listening().context("the listening sockets cannot be found")?;
    let named: Vec<String> =
        sockets.iter().map(|(address, socket)| format!("{address}={}", socket.as_raw_fd())).collect();
    let mut child = Command::new(&binary)
        .args(std::env::args_os().skip(1))
        .env(LISTENERS, named.join(","))
        .spawn()
        .with_context(|| format!("{} cannot be started", binary.display()))?;
    drop(sockets);
    let began = Instant::now();
    loop {
        if serving(directory) == Some(child.id()) {
            tracing::info!(process = child.id(), "A new process serves");
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("the new process ended: {status}");
        }
        if began.elapsed() > TAKE_OVER_MAX {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("the new process did not serve within {TAKE_OVER_MAX:?}");
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Asks the process that serves to be replaced by `binary`, and waits until another one does.
pub(crate) async fn ask(directory: &Path, binary: &str) -> anyhow::Result<()> {
    let before = serving(directory).context("no process serves")?;
    fs::write(directory.join(BINARY_FILE), binary)?;
    let process = nix::unistd::Pid::from_raw(i32::try_from(before)?);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGUSR2).context("the sidecar does not run")?;
    let began = Instant::now();
    while began.elapsed() < TAKE_OVER_MAX {
        if let Some(now) = serving(directory).filter(|now| *now != before) {
            println_pid(now)?;
            return Ok(());
        }
        anyhow::ensure!(
            directory.join(BINARY_FILE).exists() || serving(directory) != Some(before),
            "process {before} goes on; its log says why"
        );
        tokio::time::sleep(TICK).await;
    }
    anyhow::bail!(
        "no other process serves after {TAKE_OVER_MAX:?}; process {before} goes on, its log says why"
    )
}

fn println_pid(process: u32) -> io::Result<()> {
    use std::io::Write as _;
    writeln!(io::stdout(), "process {process} serves")
}
