//! Moves a container's output into its log and to attached clients, and their input to it. One loop over `poll`, no thread, little memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use super::attach::Attachments;
use super::log::{Lines, Log, Stream, now};
use crate::record::ShimConfig;

const READ_BYTES: usize = 16 << 10;
/// How long output may still come from processes that are being killed. Own choice.
const DRAIN_MS: u16 = 200;

/// The helper's ends of a container's streams.
#[derive(Default)]
pub(super) struct Streams {
    /// Terminal; then there is nothing else.
    pub(super) console: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

pub(super) struct Pump {
    pidfd: OwnedFd,
    outputs: Vec<Output>,
    /// Where input goes: a pipe, or the terminal.
    input: Option<OwnedFd>,
    /// Input the container has not taken yet.
    pending: Vec<u8>,
    log: Log,
    attachments: Attachments,
    buffer: Vec<u8>,
}

struct Output {
    fd: OwnedFd,
    stream: Stream,
    lines: Lines,
    open: bool,
}

/// What one round did.
struct Step {
    exited: bool,
    moved: bool,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Slot {
    Process,
    Output(usize),
    Input,
    Listener,
    Control(usize),
    ClientInput(usize),
}

// === impl Pump ===

impl Pump {
    pub(super) fn new(config: &ShimConfig, dir: &Path, pidfd: OwnedFd, streams: Streams) -> Self {
        let output = |fd: OwnedFd, stream| Output { fd, stream, lines: Lines::new(stream), open: true };
        let mut outputs = Vec::new();
        outputs.extend(streams.stdout.map(|fd| output(fd, Stream::Stdout)));
        outputs.extend(streams.stderr.map(|fd| output(fd, Stream::Stderr)));
        let mut input = streams.stdin;
        if let Some(console) = streams.console {
            input = console.try_clone().ok().filter(|_| config.stdin);
            outputs.push(output(console, Stream::Stdout));
        }
        for fd in outputs.iter().map(|output| &output.fd).chain(&input) {
            set_nonblocking(fd.as_fd());
        }
        Self {
            pidfd,
            outputs,
            input,
            pending: Vec::new(),
            log: Log::open(&config.log_path),
            attachments: Attachments::listen(dir, config.stdin_once),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Serves until the container's first process has ended.
    pub(super) fn until_exit(&mut self) -> io::Result<()> {
        while !self.step(PollTimeout::NONE, true)?.exited {}
        Ok(())
    }

    /// Reads what is left. Everything that could write is dead or, if `dying`, about to be.
    pub(super) fn drain(&mut self, dying: bool) -> io::Result<()> {
        let wait = PollTimeout::from(if dying { DRAIN_MS } else { 0 });
        while !self.outputs.is_empty() && self.step(wait, false)?.moved {}
        let now = now();
        for output in &mut self.outputs {
            output.lines.finish(now, &mut self.log);
        }
        self.log.flush();
        Ok(())
    }

    fn step(&mut self, timeout: PollTimeout, living: bool) -> io::Result<Step> {
        let mut step = Step { exited: false, moved: false };
        for slot in self.wait(timeout, living)? {
            match slot {
                Slot::Process => step.exited = true,
                Slot::Output(n) => step.moved |= self.read_output(n)?,
                Slot::Input => self.write_input(),
                Slot::Listener => self.attachments.accept(),
                Slot::Control(n) => {
                    let console = self.outputs.first().map(|output| output.fd.as_fd());
                    if self.attachments.hear(n, console) {
                        self.input = None;
                    }
                }
                Slot::ClientInput(n) => self.read_client(n),
            }
        }
        self.log.flush();
        self.outputs.retain(|output| output.open);
        self.attachments.forget_gone();
        Ok(step)
    }

    /// Waits until something can be done and says what.
    fn wait(&self, timeout: PollTimeout, living: bool) -> io::Result<Vec<Slot>> {
        let mut set: Vec<(Slot, PollFd<'_>)> = Vec::with_capacity(8);
        let mut add = |slot, fd, flags| set.push((slot, PollFd::new(fd, flags)));
        for (n, output) in self.outputs.iter().enumerate() {
            add(Slot::Output(n), output.fd.as_fd(), PollFlags::POLLIN);
        }
        if living {
            add(Slot::Process, self.pidfd.as_fd(), PollFlags::POLLIN);
            if let Some(listener) = self.attachments.listener() {
                add(Slot::Listener, listener, PollFlags::POLLIN);
            }
            if let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
                add(Slot::Input, input.as_fd(), PollFlags::POLLOUT);
            }
            for (n, control, input) in self.attachments.clients() {
                add(Slot::Control(n), control, PollFlags::POLLIN);
                if let Some(input) = input.filter(|_| self.pending.is_empty() && self.input.is_some()) {
                    add(Slot::ClientInput(n), input, PollFlags::POLLIN);
                }
            }
        }
        let (slots, mut fds): (Vec<Slot>, Vec<PollFd<'_>>) = set.into_iter().unzip();
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                result => {
                    result?;
                    break;
                }
            }
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(slots.into_iter().zip(&fds).filter(|(_, fd)| ready(fd)).map(|(slot, _)| slot).collect())
    }

    /// Reads once; whether anything came.
    fn read_output(&mut self, n: usize) -> io::Result<bool> {
        let output = &mut self.outputs[n];
        match read(&output.fd, &mut self.buffer) {
            // A terminal without users answers EIO.
            Ok(0) | Err(Errno::EIO) => {
                output.open = false;
                output.lines.finish(now(), &mut self.log);
                Ok(true)
            }
            Ok(count) => {
                output.lines.push(&self.buffer[..count], now(), &mut self.log);
                self.attachments.send(output.stream, &self.buffer[..count]);
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read_client(&mut self, n: usize) {
        let Some(input) = self.attachments.input(n) else { return };
        match read(input, &mut self.buffer) {
            Ok(0) => {
                if self.attachments.close_input(n) {
                    self.input = None;
                }
            }
            Ok(count) => {
                self.pending.extend_from_slice(&self.buffer[..count]);
                self.write_input();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => drop(self.attachments.close_input(n)),
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &self.input else { return self.pending.clear() };
        match write(input, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The container closed its input.
            Err(_) => {
                self.input = None;
                self.pending.clear();
            }
        }
    }
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) {
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        // Changing a flag of an open descriptor cannot fail.
        let _ = fcntl(fd, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK));
    }
}
