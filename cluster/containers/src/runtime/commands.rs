//! Exec and attach: sessions with a running container.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::containers::Container;
use super::sandboxes::helper_died;
use super::{Inner, helper};
use crate::control::{AttachRequest, ExecRequest, Report};
use crate::error::Error;
use crate::exec::{
    EXEC_OUTPUT_BYTES_MAX, ExecResult, ExecSession, ExecSpec, ExitWaiter, Input, Output, Resize, Window,
    register,
};
use crate::record;

/// How long output may still come after a command ended whose children keep its streams open. Own choice.
const DRAIN_WAIT: Duration = Duration::from_millis(500);
/// An attached client that reads slowly loses output beyond this. The most an unprivileged pipe can have.
const ATTACH_PIPE_BYTES: i32 = 1 << 20;

impl Inner {
    pub(super) async fn run_exec(&self, container: &Container, spec: ExecSpec) -> Result<ExecSession, Error> {
        let state = container.running()?;
        if spec.argv.is_empty() {
            return Err(Error::Start("no command specified".into()));
        }
        let dir = self.container_dir(&container.record.id);
        let streams = Streams::make(&spec).map_err(Error::io("cannot make pipes"))?;
        let (mut child, control) = helper::spawn(&self.program, &self.config, "exec", &dir)?;
        // Reaped whenever it ends; its messages say what the session needs.
        tokio::spawn(async move { child.wait().await });
        let request =
            ExecRequest { argv: spec.argv, env: spec.env, tty: spec.tty, size: spec.size, pid: state.pid };
        let theirs: Vec<_> = streams.theirs.iter().map(AsFd::as_fd).collect();
        control.send(&request, &theirs).map_err(Error::io("cannot ask a helper to exec"))?;
        let Streams { stdin, stdout, stderr, theirs } = streams;
        drop(theirs);
        let mut console = None;
        loop {
            match helper::first_report(&control).await? {
                Some((Report::Console, fds)) => console = fds.into_iter().next(),
                Some((Report::Started { .. }, _)) => break,
                Some((Report::Failed { message }, _)) => return Err(Error::Start(message)),
                Some((Report::Exited { .. }, _)) | None => return Err(helper_died(&dir)),
            }
        }
        let exit = ExitWaiter::of_command(control);
        let session = match console {
            None => pipes(stdin, stdout, stderr, exit),
            Some(master) => terminal(master, spec.stdin, exit),
        };
        session.map_err(Error::io("cannot use the streams of a command"))
    }

    pub(super) async fn run_exec_sync(
        &self,
        container: &Container,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecResult, Error> {
        let run = async {
            let session = self.run_exec(container, ExecSpec { argv, ..ExecSpec::default() }).await?;
            let ExecSession { stdout, stderr, exit, .. } = session;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = {
                let read = async {
                    tokio::join!(collect(stdout, &mut out), collect(stderr, &mut err));
                };
                tokio::pin!(read);
                let wait = exit.wait();
                tokio::pin!(wait);
                tokio::select! {
                    code = &mut wait => {
                        // Whatever a child left behind still writes is not waited for.
                        let _ = tokio::time::timeout(DRAIN_WAIT, read).await;
                        code?
                    }
                    () = &mut read => wait.await?,
                }
            };
            Ok(ExecResult { code, stdout: out, stderr: err })
        };
        // Dropping the session kills the command.
        tokio::time::timeout(timeout, run).await.unwrap_or(Err(Error::Timeout(timeout)))
    }

    pub(super) fn run_attach(&self, container: Arc<Container>, stdin: bool) -> Result<ExecSession, Error> {
        container.running()?;
        let (dir, spec) = (self.container_dir(&container.record.id), &container.record.spec);
        let run = || -> io::Result<ExecSession> {
            let control = helper::Control::new(connect_to(&dir)?)?;
            let with_stdin = stdin && spec.stdin;
            let (stdin_theirs, stdin) =
                if with_stdin { pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
            let (stdout, stdout_theirs) = pipe()?;
            let (stderr, stderr_theirs) =
                if spec.tty { (None, None) } else { pipe().map(|(r, w)| (Some(r), Some(w)))? };
            for ours in [Some(&stdout), stderr.as_ref()].into_iter().flatten() {
                // Smaller is allowed too: it only costs slow readers.
                let _ = fcntl(ours, FcntlArg::F_SETPIPE_SZ(ATTACH_PIPE_BYTES));
            }
            let join = AttachRequest::Join { stdin: with_stdin, stdout: true, stderr: !spec.tty };
            let theirs = [stdin_theirs.as_ref(), Some(&stdout_theirs), stderr_theirs.as_ref()];
            let theirs: Vec<_> = theirs.into_iter().flatten().map(AsFd::as_fd).collect();
            control.send(&join, &theirs)?;
            let resize =
                if spec.tty { Resize(Window::Attached(control.clone())) } else { Resize(Window::None) };
            let exit = ExitWaiter::of_container(container.clone(), control);
            let mut session = pipes(stdin, Some(stdout), stderr, exit)?;
            session.resize = resize;
            Ok(session)
        };
        run().map_err(Error::io(format!("cannot attach to container {}", container.record.id)))
    }
}

/// Ends of the pipes of a command.
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    theirs: Vec<OwnedFd>,
}

// === impl Streams ===

impl Streams {
    fn make(spec: &ExecSpec) -> io::Result<Self> {
        if spec.tty {
            return Ok(Self { stdin: None, stdout: None, stderr: None, theirs: Vec::new() });
        }
        let (theirs_in, stdin) = if spec.stdin {
            pipe().map(|(read, write)| (read, Some(write)))?
        } else {
            (open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?, None)
        };
        let ((stdout, theirs_out), (stderr, theirs_err)) = (pipe()?, pipe()?);
        Ok(Self {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            theirs: vec![theirs_in, theirs_out, theirs_err],
        })
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

fn pipes(
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    exit: ExitWaiter,
) -> io::Result<ExecSession> {
    Ok(ExecSession {
        stdin: stdin.map(register).transpose()?.map(Input::new),
        stdout: stdout.map(register).transpose()?.map(Output::new),
        stderr: stderr.map(register).transpose()?.map(Output::new),
        resize: Resize(Window::None),
        exit,
    })
}

fn terminal(master: OwnedFd, stdin: bool, exit: ExitWaiter) -> io::Result<ExecSession> {
    let master = register(master)?;
    Ok(ExecSession {
        stdin: stdin.then(|| Input::new(master.clone())),
        stdout: Some(Output::new(master.clone())),
        stderr: None,
        resize: Resize(Window::Terminal(master)),
        exit,
    })
}

async fn collect(stream: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 16 << 10];
    // An error is an end, too.
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let room = EXEC_OUTPUT_BYTES_MAX - into.len();
        into.extend_from_slice(&chunk[..count.min(room)]);
    }
}

/// Connects to the container's attach socket, whose path may be longer than an address.
fn connect_to(dir: &Path) -> io::Result<OwnedFd> {
    let dir = open(dir, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), record::ATTACH);
    connect(client.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    Ok(client)
}
