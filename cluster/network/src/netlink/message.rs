//! Building one netlink message: header, fixed part, attributes.

const HEADER_BYTES: usize = 16;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` of linux/netfilter/nfnetlink.h.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM_NFTABLES: u16 = 10;
/// `NLA_F_NESTED` of linux/netlink.h.
const NESTED: u16 = 0x8000;

/// A message being written; [`Message::finish`] appends it to a batch.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    kind: u16,
    flags: u16,
}

// === impl Message ===

impl Message {
    /// A request of type `kind` that begins with the fixed part `fixed`.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes, kind, flags: flags as u16 | libc::NLM_F_REQUEST as u16 };
        message.pad();
        message
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.push_attribute(kind, value);
        self
    }

    /// Adds an attribute whose value is a string with its terminating zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute that holds the attributes (and other bytes) `inner` writes.
    pub(crate) fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let mut this = inner(self);
        let length = (this.bytes.len() - start) as u16;
        this.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        this.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        this.pad();
        this
    }

    /// Adds bytes as they are: the fixed part inside a nested attribute.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Asks the kernel to answer even on success.
    pub(crate) fn acknowledged(mut self) -> Self {
        self.flags |= libc::NLM_F_ACK as u16;
        self
    }

    /// Writes the header and appends the message to `batch`.
    pub(crate) fn finish(mut self, sequence: u32, batch: &mut Vec<u8>) {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        batch.extend_from_slice(&self.bytes);
    }

    fn push_attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What opens an nftables transaction.
pub(crate) fn batch_begin() -> Message {
    Message::new(BATCH_BEGIN, 0, &generic(0, SUBSYSTEM_NFTABLES))
}

/// What commits an nftables transaction.
pub(crate) fn batch_end() -> Message {
    Message::new(BATCH_END, 0, &generic(0, SUBSYSTEM_NFTABLES))
}

/// `struct nfgenmsg`: family, version 0, resource in network order.
pub(crate) fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
