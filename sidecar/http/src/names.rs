//! Header names by their wire bytes, through a small cache of the worker: names repeat from request to request.

use std::cell::RefCell;

use http::HeaderName;

/// Slots of the direct-mapped cache.
const SLOTS: usize = 256;
/// Longer names are not cached.
const LENGTH_MAX: usize = 40;

type Slot = Option<(Box<[u8]>, HeaderName)>;

thread_local! {
    static CACHE: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// The header name written as `raw` in any letter case, or none if it is not a token.
pub(crate) fn header_name(raw: &[u8]) -> Option<HeaderName> {
    if raw.is_empty() || raw.len() > LENGTH_MAX {
        return HeaderName::from_bytes(raw).ok();
    }
    CACHE.with(|cache| {
        let mut cache = cache.borrow_mut();
        if cache.is_empty() {
            cache.resize(SLOTS, None);
        }
        let slot = &mut cache[slot_of(raw)];
        if let Some((known, name)) = slot
            && **known == *raw
        {
            return Some(name.clone());
        }
        let name = HeaderName::from_bytes(raw).ok()?;
        *slot = Some((raw.into(), name.clone()));
        Some(name)
    })
}

fn slot_of(raw: &[u8]) -> usize {
    // Both ends and the length tell names apart; an attacker who collides slots only gets the cost of an uncached name.
    let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let head = raw.first_chunk::<8>().map_or_else(|| word(raw), |bytes| u64::from_le_bytes(*bytes));
    let tail = raw.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed = (head ^ tail.rotate_left(29) ^ raw.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_cased_and_cached() {
        assert_eq!(header_name(b"X-Request-ID").unwrap().as_str(), "x-request-id");
        assert_eq!(header_name(b"X-Request-ID").unwrap().as_str(), "x-request-id");
        assert_eq!(header_name(b"host").unwrap(), http::header::HOST);
        assert!(header_name(b"bad name").is_none());
        assert!(header_name(b"").is_none());
    }
}
