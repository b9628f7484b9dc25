//! Everything that reads bytes of strangers, as functions that take any bytes: none may panic, hang or use memory without bound.
//! The targets run over their seeds and seeded mutations in `cargo test`, and longer by `make fuzz`.

mod codecs;
mod mutation;
mod texts;
mod xds;

use std::fmt;
use std::path::PathBuf;

pub use mutation::Mutator;

/// A function under test and inputs to begin with.
pub struct Target {
    /// Its name, also that of its folder of inputs under `seeds/`.
    pub name: &'static str,
    /// Inputs that are read well, from which mutations start.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input.
    pub run: fn(&[u8]),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All targets.
pub fn targets() -> Vec<Target> {
    [codecs::targets(), xds::targets(), texts::targets()].into_iter().flatten().collect()
}

impl Target {
    /// Its seeds with those kept in files: inputs that once broke it.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn all_seeds(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let mut seeds = (self.seeds)();
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(self.name);
        if dir.is_dir() {
            for entry in std::fs::read_dir(dir)? {
                seeds.push(std::fs::read(entry?.path())?);
            }
        }
        Ok(seeds)
    }
}
