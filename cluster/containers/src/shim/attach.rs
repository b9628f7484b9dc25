//! Clients that watch a running container's output and type its input. They hand over their ends of pipes; a slow one loses output, never delays
//! the container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use nix::unistd::{chdir, write};

use super::log::Stream;
use super::pump::set_nonblocking;
use crate::control::{self, AttachRequest};
use crate::{record, sys};

/// More would only be a mistake. Own choice.
const CLIENTS_MAX: usize = 8;

pub(super) struct Attachments {
    listener: Option<OwnedFd>,
    clients: Vec<Client>,
    stdin_once: bool,
}

struct Client {
    control: OwnedFd,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    gone: bool,
}

// === impl Attachments ===

impl Attachments {
    /// Listens in the container's directory. Without a socket the container runs, it just cannot be attached to.
    pub(super) fn listen(dir: &Path, stdin_once: bool) -> Self {
        let make = || -> nix::Result<OwnedFd> {
            // A relative address: socket paths are short, directories may not be.
            chdir(dir)?;
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
            bind(listener.as_raw_fd(), &UnixAddr::new(record::ATTACH)?)?;
            listen(&listener, Backlog::new(CLIENTS_MAX as i32)?)?;
            Ok(listener)
        };
        Self { listener: make().ok(), clients: Vec::new(), stdin_once }
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().filter(|_| self.clients.len() < CLIENTS_MAX).map(AsFd::as_fd)
    }

    /// Number, control socket and input of each client.
    pub(super) fn clients(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, Option<BorrowedFd<'_>>)> {
        self.clients
            .iter()
            .enumerate()
            .map(|(n, c)| (n, c.control.as_fd(), c.stdin.as_ref().map(AsFd::as_fd)))
    }

    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(raw) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            let control = sys::received(&[raw]).remove(0);
            self.clients.push(Client { control, stdin: None, stdout: None, stderr: None, gone: false });
        }
    }

    /// Reads a client's message; whether the container's input must now be closed.
    pub(super) fn hear(&mut self, n: usize, console: Option<BorrowedFd<'_>>) -> bool {
        let client = &mut self.clients[n];
        match control::receive::<AttachRequest>(client.control.as_fd()) {
            Ok(Some((AttachRequest::Join { stdin, stdout, stderr }, fds))) => {
                let mut fds = fds.into_iter();
                for fd in fds.as_slice() {
                    set_nonblocking(fd.as_fd());
                }
                let mut take = |wanted: bool| if wanted { fds.next() } else { None };
                (client.stdin, client.stdout, client.stderr) = (take(stdin), take(stdout), take(stderr));
                false
            }
            Ok(Some((AttachRequest::Resize { columns, rows }, _))) => {
                if let Some(console) = console {
                    // Pipes have no size; a terminal always takes one.
                    let _ = sys::set_window_size(console, columns, rows);
                }
                false
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Ok(None) | Err(_) => {
                client.gone = true;
                client.stdin.take().is_some() && self.stdin_once
            }
        }
    }

    pub(super) fn input(&self, n: usize) -> Option<&OwnedFd> {
        self.clients.get(n)?.stdin.as_ref()
    }

    /// A client's input ended; whether the container's must, too.
    pub(super) fn close_input(&mut self, n: usize) -> bool {
        self.clients[n].stdin.take().is_some() && self.stdin_once
    }

    /// Copies output to everyone who can take it now.
    pub(super) fn send(&mut self, stream: Stream, data: &[u8]) {
        for client in &mut self.clients {
            let target = match stream {
                Stream::Stdout => &mut client.stdout,
                Stream::Stderr => &mut client.stderr,
            };
            if let Some(fd) = target
                && let Err(error) = write(fd.as_fd(), data)
                && error != nix::errno::Errno::EAGAIN
            {
                *target = None;
            }
        }
    }

    pub(super) fn forget_gone(&mut self) {
        self.clients.retain(|client| !client.gone);
    }
}
