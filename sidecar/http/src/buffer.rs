//! The worker's pool of read and write buffers: a connection borrows one only while bytes are under way.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// Capacity of a pooled buffer: one TLS record of plain text.
pub const BUFFER_BYTES: usize = 16 * 1024;
/// Capacity of the buffers for connections that move much: four records.
pub const LARGE_BYTES: usize = 4 * BUFFER_BYTES;
/// Large buffers kept by one worker.
const KEPT_LARGE: usize = 2;
/// Buffers kept by one worker; above that they go back to the allocator.
const KEPT_BUFFERS: usize = 32;
/// Header maps kept by one worker.
const KEPT_MAPS: usize = 64;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static LARGE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`BUFFER_BYTES`].
pub fn take() -> BytesMut {
    BUFFERS
        .try_with(|pool| pool.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
}

/// An empty buffer with room for [`LARGE_BYTES`].
pub fn take_large() -> BytesMut {
    let kept = LARGE.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
    kept.unwrap_or_else(|| BytesMut::with_capacity(LARGE_BYTES))
}

/// Gives a buffer back. It is kept if nothing else refers to its memory and it has the usual size.
pub fn give(mut buffer: BytesMut) {
    buffer.clear();
    if !reclaim(&mut buffer) {
        return;
    }
    let large = buffer.capacity() >= LARGE_BYTES;
    if buffer.capacity() > if large { LARGE_BYTES } else { 2 * BUFFER_BYTES } {
        return;
    }
    let (pool, most) = if large { (&LARGE, KEPT_LARGE) } else { (&BUFFERS, KEPT_BUFFERS) };
    // A thread that is ending has no pool any more: the buffer is then simply freed.
    let _ = pool.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < most {
            pool.push(buffer);
        }
    });
}

/// Makes an empty buffer whole again; false if another handle still refers to its memory or it never had any.
pub(crate) fn reclaim(buffer: &mut BytesMut) -> bool {
    buffer.capacity() >= BUFFER_BYTES || (buffer.capacity() > 0 && buffer.try_reclaim(BUFFER_BYTES))
}

/// An empty header map that already has room.
pub fn take_map() -> HeaderMap {
    MAPS.try_with(|pool| pool.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| HeaderMap::with_capacity(24))
}

/// Gives a header map back for the next message.
pub fn give_map(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > 256 {
        return;
    }
    map.clear();
    let _ = MAPS.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < KEPT_MAPS {
            pool.push(map);
        }
    });
}

/// A byte string without memory of its own.
pub(crate) const EMPTY: Bytes = Bytes::new();
