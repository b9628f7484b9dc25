//! Ring hash (Ketama): every endpoint stands at many places of a ring; a request goes to the next place after its hash.

use crate::murmur::murmur2;
use crate::policy::Named;
use sidecar_model::cluster::HashFunction;
use xxhash_rust::xxh64::xxh64;

/// Sorted places with the host that stands there.
#[derive(Debug)]
pub(crate) struct Ring {
    places: Vec<(u64, u32)>,
}

impl Ring {
    /// The ring has at least `min` and at most `max` places, shared by weight, as Envoy shares them.
    pub(crate) fn new(hosts: &[Named], min: u64, max: u64, function: HashFunction) -> Self {
        let total: f64 = hosts.iter().map(|host| host.weight).sum();
        let lightest = hosts.iter().map(|host| host.weight / total).fold(1.0, f64::min);
        if hosts.is_empty() || !lightest.is_normal() {
            return Self { places: Vec::new() };
        }
        // Large enough that the lightest endpoint has whole places, within the bounds.
        let scale = ((lightest * min as f64).ceil() / lightest).min(max as f64);
        let mut places = Vec::with_capacity(scale.ceil() as usize);
        let (mut placed, mut target) = (0.0, 0.0);
        for host in hosts {
            target += scale * host.weight / total;
            let mut place = 0u64;
            while placed < target {
                let key = format!("{}_{place}", host.name);
                let hash = match function {
                    HashFunction::XxHash => xxh64(key.as_bytes(), 0),
                    HashFunction::MurmurHash2 => murmur2(key.as_bytes()),
                };
                places.push((hash, host.index));
                place += 1;
                placed += 1.0;
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

    /// How many places there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}
