//! A small synchronous netlink client: messages with attributes, requests in one batch, acknowledgements.
//!
//! Setting up a pod is a dozen messages; sending them together from the thread that is in the namespace anyway costs well under a
//! millisecond and needs no runtime.

pub(crate) mod message;
pub(crate) mod route;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use self::message::Message;

/// The kernel answers at once; a missing answer must not hang the cluster.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;
const RECEIVE_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 16;
/// Above the default send buffer, a transaction needs a larger one.
const SEND_BYTES_DEFAULT: usize = 128 * 1024;

/// A netlink socket, belonging to the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    file: OwnedFd,
    sequence: u32,
}

/// A request that the kernel refused: its place in the batch, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) source: io::Error,
}

impl From<io::Error> for Refused {
    fn from(source: io::Error) -> Self {
        Self { index: 0, source }
    }
}

// === impl NetlinkSocket ===

impl NetlinkSocket {
    /// Opens a socket for links, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// Opens a socket for nftables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let file = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(file.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&file, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_SECONDS))?;
        Ok(Self { file, sequence: 1 })
    }

    /// Sends `messages` together; the kernel runs them in order. Returns the first refusal, after all have been answered.
    pub(crate) fn request(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.sequence;
        let count = messages.len();
        let mut batch = Vec::new();
        for message in messages {
            message.acknowledged().finish(self.take_sequence(), &mut batch);
        }
        self.send_whole(&batch)?;
        let mut answered = 0;
        let mut refused = None;
        while answered < count {
            for answer in self.receive()? {
                let Some(index) = answer.sequence.checked_sub(first).map(|index| index as usize) else {
                    continue;
                };
                if index >= count || answer.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                answered += 1;
                if let Some(source) = answer.error() {
                    refused.get_or_insert(Refused { index, source });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Runs `messages` as one nftables transaction: all of them happen, or none.
    pub(crate) fn transaction(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        let count = messages.len();
        if count == 0 {
            return Ok(());
        }
        let mut batch = Vec::new();
        message::batch_begin().finish(self.take_sequence(), &mut batch);
        let first = self.sequence;
        for (index, message) in messages.into_iter().enumerate() {
            // Errors come for every message; the last one's acknowledgement says that all have been seen.
            let message = if index + 1 == count { message.acknowledged() } else { message };
            message.finish(self.take_sequence(), &mut batch);
        }
        message::batch_end().finish(self.take_sequence(), &mut batch);
        self.send_whole(&batch)?;
        let mut refused = None;
        loop {
            for answer in self.receive()? {
                if answer.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                let error = answer.error();
                let Some(index) = answer.sequence.checked_sub(first).map(|index| index as usize) else {
                    // The batch as a whole was refused: an old answer, or no permission, or no memory.
                    if let (true, Some(source)) = (answer.sequence + 1 == first, error) {
                        return Err(Refused { index: 0, source });
                    }
                    continue;
                };
                if let Some(source) = error {
                    refused.get_or_insert(Refused { index, source });
                }
                if index + 1 >= count {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn take_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        sequence
    }

    fn send_whole(&self, batch: &[u8]) -> io::Result<()> {
        if batch.len() > SEND_BYTES_DEFAULT {
            setsockopt(&self.file, sockopt::SndBufForce, &(batch.len() * 2))?;
        }
        let sent = send(self.file.as_raw_fd(), batch, MsgFlags::empty())?;
        if sent == batch.len() {
            Ok(())
        } else {
            Err(io::Error::other("netlink took only a part of a batch"))
        }
    }

    fn receive(&self) -> io::Result<Vec<Answer>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let received = loop {
            match recv(self.file.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                result => break result?,
            }
        };
        buffer.truncate(received);
        Ok(parse(&buffer))
    }
}

/// One message from the kernel.
struct Answer {
    kind: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Answer {
    /// The error of an NLMSG_ERROR answer; zero there means success.
    fn error(&self) -> Option<io::Error> {
        let code = self.payload.first_chunk::<4>().map_or(-libc::EBADMSG, |bytes| i32::from_ne_bytes(*bytes));
        (code != 0).then(|| io::Error::from_raw_os_error(-code))
    }
}

fn parse(mut buffer: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((header, _)) = buffer.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let Some(payload) = buffer.get(HEADER_BYTES..length) else { break };
        answers.push(Answer { kind, sequence, payload: payload.to_vec() });
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}
