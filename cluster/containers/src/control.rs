//! Messages between the runtime and its helper processes: JSON datagrams with descriptors over a pair of sockets.
//! The helper finds its end as descriptor 0.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys;

/// Longest message. A command line longer than this is refused. Below the kernel's default socket buffer (208 KiB).
const MESSAGE_BYTES_MAX: usize = 128 << 10;
const FDS_MAX: usize = 3;

/// What a helper says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The master of the terminal comes with this message.
    Console,
    /// The program runs under this process id (of the host).
    Started { pid: i32 },
    /// It could not be started.
    Failed { message: String },
    /// It ended: exit code, or 128 + signal.
    Exited { code: i32 },
}

/// What the runtime asks `shim exec`. Standard streams come with it unless `tty`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) tty: bool,
    pub(crate) size: Option<(u16, u16)>,
    /// First process of the container, on the host.
    pub(crate) pid: i32,
}

/// What a client of an attached container says: first `Join`, with its ends of the streams it wants in this order, then sizes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AttachRequest {
    /// Which streams come with this message.
    Join { stdin: bool, stdout: bool, stderr: bool },
    /// The terminal's new size.
    Resize { columns: u16, rows: u16 },
}

/// A pair of connected datagram sockets, closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message with descriptors. Never raises SIGPIPE.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, "message to a helper is too long"));
    }
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let slices = [IoSlice::new(&bytes)];
    loop {
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives one message with its descriptors; `None` once the peer is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; FDS_MAX]);
    let (length, fds) = {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                // A peer that left without reading everything resets the connection; what it said before comes with the next call, then the end.
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
                result => break result?,
            }
        };
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                fds.extend(sys::received(&raw));
            }
        }
        (message.bytes, fds)
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..length])?, fds)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_carry_descriptors_and_end_of_file_is_none() {
        let (left, right) = pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        send(left.as_fd(), &Report::Started { pid: 7 }, &[write.as_fd()]).unwrap();
        let (report, fds) = receive::<Report>(right.as_fd()).unwrap().unwrap();
        assert!(matches!(report, Report::Started { pid: 7 }));
        nix::unistd::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&read, &mut byte).unwrap(), 1);
        drop(left);
        assert!(receive::<Report>(right.as_fd()).unwrap().is_none());
    }

    #[test]
    fn the_last_words_of_a_peer_that_did_not_listen_are_heard() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), &Report::Console, &[]).unwrap();
        send(right.as_fd(), &Report::Failed { message: "why".into() }, &[]).unwrap();
        drop(right);
        let (report, _) = receive::<Report>(left.as_fd()).unwrap().unwrap();
        assert!(matches!(report, Report::Failed { message } if message == "why"));
        assert!(receive::<Report>(left.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        let (left, _right) = pair().unwrap();
        let long = Report::Failed { message: "x".repeat(MESSAGE_BYTES_MAX) };
        assert_eq!(send(left.as_fd(), &long, &[]).unwrap_err().kind(), io::ErrorKind::ArgumentListTooLong);
    }
}
