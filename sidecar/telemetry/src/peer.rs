//! Istio's exchange of workload metadata in `x-envoy-peer-metadata`: base64 of a protobuf `Struct`.
//!
//! Only the few fields that metrics need are written and read, with a hand-written codec of the wire format: the message comes from
//! another workload on every connection, so it is bounded and never trusted for policy.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use http::{HeaderName, HeaderValue};

use crate::labels::Workload;
use crate::wire::put_bytes;

/// `x-envoy-peer-metadata`
pub const PEER_METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
/// `x-envoy-peer-metadata-id`
pub const PEER_METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// Bytes of a header that is looked at; longer ones are ignored.
const HEADER_MAX: usize = 8 * 1024;
/// Peers remembered by one worker.
const PEERS_MAX: usize = 1024;
/// Nesting of messages that is followed.
const DEPTH_MAX: usize = 4;

const KEY_NAME: &str = "WORKLOAD_NAME";
const KEY_NAMESPACE: &str = "NAMESPACE";
const KEY_CLUSTER: &str = "CLUSTER_ID";
const KEY_LABELS: &str = "LABELS";
const LABEL_APP: &str = "app";
const LABEL_VERSION: &str = "version";
const LABEL_CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const LABEL_CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// The header that tells peers about `workload`.
pub fn encode(workload: &Workload) -> HeaderValue {
    let mut labels = Vec::new();
    for (key, value) in [
        (LABEL_APP, &workload.app),
        (LABEL_VERSION, &workload.version),
        (LABEL_CANONICAL_NAME, &workload.canonical_name),
        (LABEL_CANONICAL_REVISION, &workload.canonical_revision),
    ] {
        put_text(&mut labels, key, value);
    }
    let mut fields = Vec::new();
    put_text(&mut fields, KEY_CLUSTER, &workload.cluster);
    if !labels.is_empty() {
        let mut value = Vec::new();
        put_bytes(&mut value, 5, &labels);
        put_entry(&mut fields, KEY_LABELS, &value);
    }
    put_text(&mut fields, KEY_NAMESPACE, &workload.namespace);
    put_text(&mut fields, KEY_NAME, &workload.name);
    HeaderValue::try_from(BASE64_STANDARD.encode(fields)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What a peer says about itself; none if it is not understood.
pub fn decode(header: &[u8]) -> Option<Workload> {
    if header.len() > HEADER_MAX {
        return None;
    }
    let message = BASE64_STANDARD.decode(header).or_else(|_| BASE64_STANDARD_NO_PAD.decode(header)).ok()?;
    let mut workload = Workload::default();
    read_struct(&message, 0, &mut |key, text, labels| match (labels, key) {
        (false, KEY_NAME) => workload.name = text.into(),
        (false, KEY_NAMESPACE) => workload.namespace = text.into(),
        (false, KEY_CLUSTER) => workload.cluster = text.into(),
        (true, LABEL_APP) => workload.app = text.into(),
        (true, LABEL_VERSION) => workload.version = text.into(),
        (true, LABEL_CANONICAL_NAME) => workload.canonical_name = text.into(),
        (true, LABEL_CANONICAL_REVISION) => workload.canonical_revision = text.into(),
        _ => {}
    })?;
    if workload.canonical_name.is_empty() {
        workload.canonical_name =
            if workload.app.is_empty() { workload.name.clone() } else { workload.app.clone() };
    }
    Some(workload)
}

/// Peers that were decoded before: the same header gives the same shared workload, so that metric keys can compare addresses.
#[derive(Debug, Clone, Default)]
pub struct PeerCache {
    known: Rc<RefCell<HashMap<HeaderValue, Arc<Workload>>>>,
}

impl PeerCache {
    /// The workload behind a header.
    pub fn get(&self, header: &HeaderValue) -> Arc<Workload> {
        let mut known = self.known.borrow_mut();
        if let Some(workload) = known.get(header) {
            return Arc::clone(workload);
        }
        let Some(workload) = decode(header.as_bytes()) else { return Workload::unknown() };
        let workload = Arc::new(workload);
        if known.len() >= PEERS_MAX {
            known.clear();
        }
        // A copy of its own: the header's memory is a connection's buffer.
        if let Ok(owned) = HeaderValue::from_bytes(header.as_bytes()) {
            known.insert(owned, Arc::clone(&workload));
        }
        workload
    }
}

// === wire format ===

/// An entry of a `Struct`'s map.
fn put_entry(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let mut entry = Vec::new();
    put_bytes(&mut entry, 1, key.as_bytes());
    put_bytes(&mut entry, 2, value);
    put_bytes(out, 1, &entry);
}

fn put_text(out: &mut Vec<u8>, key: &str, text: &str) {
    if !text.is_empty() {
        let mut value = Vec::new();
        put_bytes(&mut value, 3, text.as_bytes());
        put_entry(out, key, &value);
    }
}

fn read_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The next field: its number, and its bytes if it is length-delimited.
fn read_field<'a>(input: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let key = read_varint(input)?;
    let skip = match key & 7 {
        0 => {
            read_varint(input)?;
            return Some((key >> 3, &[]));
        }
        1 => 8,
        2 => usize::try_from(read_varint(input)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (bytes, rest) = input.split_at_checked(skip)?;
    *input = rest;
    Some((key >> 3, if key & 7 == 2 { bytes } else { &[] }))
}

/// Calls `found` with every text of a `Struct`, and whether it stands among the labels.
fn read_struct(mut message: &[u8], depth: usize, found: &mut dyn FnMut(&str, &str, bool)) -> Option<()> {
    while !message.is_empty() {
        let (1, mut entry) = read_field(&mut message)? else { continue };
        let (mut key, mut value) = ("", &[][..]);
        while !entry.is_empty() {
            match read_field(&mut entry)? {
                (1, bytes) => key = std::str::from_utf8(bytes).ok()?,
                (2, bytes) => value = bytes,
                _ => {}
            }
        }
        while !value.is_empty() {
            match read_field(&mut value)? {
                (3, text) => found(key, std::str::from_utf8(text).ok()?, depth == 1),
                (5, nested) if key == KEY_LABELS && depth < DEPTH_MAX => {
                    read_struct(nested, depth + 1, found)?
                }
                _ => {}
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            name: "productpage-v1".into(),
            namespace: "default".into(),
            canonical_name: "productpage".into(),
            canonical_revision: "v1".into(),
            app: "productpage".into(),
            version: "v1".into(),
            cluster: "Kubernetes".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let header = encode(&workload());
        assert_eq!(decode(header.as_bytes()), Some(workload()));
        let cache = PeerCache::default();
        assert!(Arc::ptr_eq(&cache.get(&header), &cache.get(&header.clone())));
    }

    #[test]
    fn garbage_is_not() {
        let whole = BASE64_STANDARD.decode(encode(&workload()).as_bytes()).unwrap();
        for cut in 1..whole.len() {
            let _ = decode(BASE64_STANDARD.encode(&whole[..cut]).as_bytes());
        }
        assert_eq!(decode(b"!!"), None);
        assert_eq!(decode(&vec![b'A'; HEADER_MAX + 1]), None);
        assert_eq!(decode(BASE64_STANDARD.encode([0xff; 64]).as_bytes()), None);
    }
}
