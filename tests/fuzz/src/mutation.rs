//! Seeded mutations: bytes changed, pieces moved, taken out, doubled, joined with other seeds.

/// Makes inputs out of seeds, the same ones for the same number.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

/// Longest input.
const LENGTH_MAX: usize = 16 * 1024;
/// Values at the edges of number types.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'"'];

impl Mutator {
    /// Mutations of these seeds; an empty input is always among them.
    pub fn new(number: u64, mut seeds: Vec<Vec<u8>>) -> Self {
        seeds.push(Vec::new());
        Self { state: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, seeds }
    }

    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 16).unwrap_or(0) % end.max(1)
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        let mut bytes = self.seeds[at].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes);
        }
        bytes.truncate(LENGTH_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let start = self.below(bytes.len() + 1);
        let end = (start + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            0 if start < bytes.len() => bytes[start] = u8::try_from(self.below(256)).unwrap_or(0),
            1 if start < bytes.len() => bytes[start] ^= 1 << self.below(8),
            2 if start < bytes.len() => bytes[start] = EDGES[self.below(EDGES.len())],
            3 if start < end => drop(bytes.drain(start..end)),
            4 if start < end => {
                // A piece many times over: what grows with repetition shows itself.
                let piece = bytes[start..end].to_vec();
                let times = 1 << self.below(8);
                let repeated: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * times).collect();
                bytes.splice(start..start, repeated);
            }
            5 => bytes.truncate(start),
            6 => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len() + 1);
                let piece = self.seeds[other][from..].to_vec();
                bytes.splice(start..start, piece);
            }
            _ => {
                let random: Vec<u8> =
                    (0..self.below(8)).map(|_| u8::try_from(self.below(256)).unwrap_or(0)).collect();
                bytes.splice(start..start, random);
            }
        }
    }
}
