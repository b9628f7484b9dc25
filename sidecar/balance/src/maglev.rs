//! Maglev: a table of prime size that the endpoints fill in turn, each along its own permutation.

use xxhash_rust::xxh64::xxh64;

/// Host by table position.
#[derive(Debug)]
pub(crate) struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    /// `hosts` are `(index, name, weight)`; `size` is a prime (65,537 unless configured).
    pub(crate) fn new(hosts: &[(u32, String, u32)], size: u64) -> Self {
        let size = size.max(1);
        if hosts.is_empty() {
            return Self { table: Vec::new() };
        }
        let heaviest = hosts.iter().map(|(_, _, weight)| *weight).max().unwrap_or(1).max(1);
        let mut walks: Vec<(u64, u64, u64)> = hosts
            .iter()
            .map(|(_, name, _)| {
                (xxh64(name.as_bytes(), 0) % size, xxh64(name.as_bytes(), 1) % (size - 1).max(1) + 1, 0)
            })
            .collect();
        let mut table = vec![u32::MAX; size as usize];
        let mut filled = 0;
        let mut credit = vec![0u64; hosts.len()];
        while filled < size {
            for (at, (index, _, weight)) in hosts.iter().enumerate() {
                // A lighter endpoint sits out some rounds.
                credit[at] += u64::from(*weight);
                if credit[at] < u64::from(heaviest) {
                    continue;
                }
                credit[at] -= u64::from(heaviest);
                let (offset, skip, next) = &mut walks[at];
                loop {
                    let position = ((*offset + *skip * *next) % size) as usize;
                    *next += 1;
                    if table[position] == u32::MAX {
                        table[position] = *index;
                        filled += 1;
                        break;
                    }
                }
                if filled == size {
                    break;
                }
            }
        }
        Self { table }
    }

    /// The host for a hash; `attempt` gives others.
    pub(crate) fn get(&self, hash: u64, attempt: usize) -> Option<u32> {
        let hash =
            if attempt == 0 { hash } else { hash ^ !(attempt as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) };
        (!self.table.is_empty()).then(|| self.table[(hash % self.table.len() as u64) as usize])
    }
}
