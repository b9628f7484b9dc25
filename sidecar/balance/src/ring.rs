//! Ring hash (Ketama): every endpoint stands at many places of a ring; a request goes to the next place after its hash.

use xxhash_rust::xxh64::xxh64;

/// Sorted places with the host that stands there.
#[derive(Debug)]
pub(crate) struct Ring {
    places: Vec<(u64, u32)>,
}

impl Ring {
    /// `hosts` are `(index, name, weight)`. The ring has at least `min` and at most `max` places, shared by weight.
    pub(crate) fn new(hosts: &[(u32, String, u32)], min: u64, max: u64) -> Self {
        let total: u64 = hosts.iter().map(|(_, _, weight)| u64::from(*weight)).sum();
        let lightest = hosts.iter().map(|(_, _, weight)| u64::from(*weight)).min().unwrap_or(1).max(1);
        // As in Envoy: large enough that the lightest endpoint has whole places, within the bounds.
        let scale = (min as f64 * lightest as f64 / total.max(1) as f64).ceil() / lightest as f64;
        let size = (scale * total as f64).min(max as f64).max(1.0);
        let mut places = Vec::with_capacity(size as usize);
        for (index, name, weight) in hosts {
            let count = (size * f64::from(*weight) / total.max(1) as f64).round().max(1.0) as u64;
            for place in 0..count {
                places.push((xxh64(format!("{name}_{place}").as_bytes(), 0), *index));
            }
        }
        places.sort_unstable();
        Self { places }
    }

    /// The host at the `skip`-th place after `hash`.
    pub(crate) fn get(&self, hash: u64, skip: usize) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let at = self.places.partition_point(|(place, _)| *place < hash);
        Some(self.places[(at + skip) % self.places.len()].1)
    }
}
