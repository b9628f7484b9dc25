//! A command in a running container: its streams, its terminal, its exit code.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::control::{AttachRequest, Report};
use crate::error::Error;
use crate::runtime::Container;
use crate::runtime::helper::Control;
use crate::sys;

/// What to run in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// Program (searched in the container's `PATH`) and arguments.
    pub argv: Vec<String>,
    /// Run on a terminal; `stderr` is then part of `stdout`.
    pub tty: bool,
    /// Give it a standard input; otherwise `/dev/null`.
    pub stdin: bool,
    /// Environment on top of the container's.
    pub env: Vec<(String, String)>,
    /// Terminal size (columns, rows) at the start.
    pub size: Option<(u16, u16)>,
}

/// A command that runs. The parts may be moved out and used by different tasks.
/// Dropping `exit` before the command ended kills the command (an attached container is left alone).
#[derive(Debug)]
pub struct ExecSession {
    /// Standard input, if asked for. Shut it down or drop it to signal its end.
    pub stdin: Option<Input>,
    /// Standard output, or the terminal.
    pub stdout: Option<Output>,
    /// Standard error; absent on a terminal.
    pub stderr: Option<Output>,
    /// Sets the terminal's size; without effect where there is none.
    pub resize: Resize,
    /// Becomes the exit code.
    pub exit: ExitWaiter,
}

/// Result of a command that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code; 128 + signal when killed.
    pub code: i32,
    /// Output, cut at [`EXEC_OUTPUT_BYTES_MAX`].
    pub stdout: Vec<u8>,
    /// Error output, cut at [`EXEC_OUTPUT_BYTES_MAX`].
    pub stderr: Vec<u8>,
}

/// How much of each stream `exec_sync` keeps; the rest is read and dropped. Own choice: what containerd keeps.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 16 << 20;

/// Writing end of a command's standard input.
#[derive(Debug)]
pub struct Input(Option<Arc<AsyncFd<OwnedFd>>>);

/// Reading end of a command's output. End of file once the command and all its children closed it.
#[derive(Debug)]
pub struct Output(Arc<AsyncFd<OwnedFd>>);

/// Sets the size of a session's terminal.
#[derive(Clone, Debug)]
pub struct Resize(pub(crate) Window);

/// Where a terminal's size is set.
#[derive(Clone, Debug)]
pub(crate) enum Window {
    None,
    /// The master is here.
    Terminal(Arc<AsyncFd<OwnedFd>>),
    /// The container's helper has it.
    Attached(Control),
}

/// Waits for the end of a command.
#[derive(Debug)]
pub struct ExitWaiter(Waiter);

#[derive(Debug)]
enum Waiter {
    Command(Control),
    /// The connection keeps the client attached.
    Container(Arc<Container>, Control),
}

// === impl ExecSession ===

impl ExecSession {
    /// Sets the terminal's size in columns and rows.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        self.resize.set(columns, rows)
    }

    /// Waits for the exit code.
    pub async fn wait(self) -> Result<i32, Error> {
        self.exit.wait().await
    }
}

// === impl ExitWaiter ===

impl ExitWaiter {
    pub(crate) fn of_command(control: Control) -> Self {
        Self(Waiter::Command(control))
    }

    pub(crate) fn of_container(container: Arc<Container>, control: Control) -> Self {
        Self(Waiter::Container(container, control))
    }

    /// Waits for the exit code; 128 + signal when killed.
    pub async fn wait(self) -> Result<i32, Error> {
        let lost = || io::Error::other("its helper process died");
        match self.0 {
            Waiter::Command(control) => loop {
                let report =
                    control.receive::<Report>().await.map_err(Error::io("cannot follow a command"))?;
                match report {
                    Some((Report::Exited { code }, _)) => return Ok(code),
                    Some(_) => {}
                    None => return Err(Error::io("cannot follow a command")(lost())),
                }
            },
            Waiter::Container(container, _control) => {
                let exit = container.ended().await;
                exit.map(|exit| exit.code).ok_or_else(|| Error::io("cannot follow a container")(lost()))
            }
        }
    }
}

// === impl Resize ===

impl Resize {
    /// Sets the size in columns and rows.
    pub fn set(&self, columns: u16, rows: u16) -> io::Result<()> {
        match &self.0 {
            Window::None => Ok(()),
            Window::Terminal(master) => sys::set_window_size(master.get_ref(), columns, rows),
            Window::Attached(control) => control.send(&AttachRequest::Resize { columns, rows }, &[]),
        }
    }
}

// === impl Input ===

impl Input {
    pub(crate) fn new(fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self(Some(fd))
    }
}

impl AsyncWrite for Input {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        loop {
            let mut guard = ready!(fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| nix::unistd::write(fd.get_ref(), data).map_err(io::Error::from)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

// === impl Output ===

impl Output {
    pub(crate) fn new(fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self(fd)
    }
}

impl AsyncRead for Output {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let result = guard.try_io(|fd| {
                nix::unistd::read(fd.get_ref(), buf.initialize_unfilled()).map_err(io::Error::from)
            });
            match result {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A terminal whose last process left answers EIO: its end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Makes a descriptor usable by the reactor.
pub(crate) fn register(fd: OwnedFd) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    sys::register(fd)
}
