//! Maglev: a table of prime size that the endpoints fill in turn, each along its own permutation.

use crate::policy::Named;
use xxhash_rust::xxh64::xxh64;

/// Host by table position.
#[derive(Debug)]
pub(crate) struct Maglev {
    table: Vec<u32>,
}

/// An endpoint while the table is filled.
struct Walk {
    index: u32,
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    target: f64,
}

impl Maglev {
    /// `size` is a prime (65,537 unless configured).
    pub(crate) fn new(hosts: &[Named], size: u64) -> Self {
        let size = size.max(1);
        let heaviest = hosts.iter().map(|host| host.weight).fold(0.0, f64::max);
        if hosts.is_empty() || !heaviest.is_normal() {
            return Self { table: Vec::new() };
        }
        let walk = |host: &Named| Walk {
            index: host.index,
            offset: xxh64(host.name.as_bytes(), 0) % size,
            skip: xxh64(host.name.as_bytes(), 1) % (size - 1).max(1) + 1,
            next: 0,
            weight: host.weight,
            target: 0.0,
        };
        let mut walks: Vec<Walk> = hosts.iter().map(walk).collect();
        let mut table = vec![u32::MAX; size as usize];
        let (mut filled, mut round) = (0, 0.0);
        while filled < size {
            round += 1.0;
            for walk in &mut walks {
                // A lighter endpoint sits out some rounds.
                if round * walk.weight < walk.target {
                    continue;
                }
                walk.target += heaviest;
                filled += walk.claim(&mut table, size);
                if filled == size {
                    break;
                }
            }
        }
        Self { table }
    }

    /// The host for a hash; `attempt` gives others, as in Envoy.
    pub(crate) fn get(&self, hash: u64, attempt: usize) -> Option<u32> {
        let hash = hash ^ (attempt as u64).wrapping_neg();
        (!self.table.is_empty()).then(|| self.table[(hash % self.table.len() as u64) as usize])
    }
}

impl Walk {
    /// Takes the next free position of its permutation.
    fn claim(&mut self, table: &mut [u32], size: u64) -> u64 {
        // Size is prime, so that the permutation reaches every position.
        while self.next < size {
            let position = ((self.offset + self.skip * self.next) % size) as usize;
            self.next += 1;
            if table[position] == u32::MAX {
                table[position] = self.index;
                return 1;
            }
        }
        0
    }
}
