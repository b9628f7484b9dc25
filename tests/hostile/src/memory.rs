//! A memory cgroup of a test, version 1 or 2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A group with a limit, removed when dropped. Processes in it must have ended by then.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Makes one.
    ///
    /// # Errors
    /// Without root or without the memory controller.
    pub fn limited(bytes: u64) -> Result<Self> {
        let first = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit) = if first.is_dir() {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let group = Self(parent.join(format!("hostile-{}", std::process::id())));
        fs::create_dir_all(&group.0).with_context(|| format!("{} could not be made", group.0.display()))?;
        fs::write(group.0.join(limit), bytes.to_string()).context("the memory controller is not there")?;
        Ok(group)
    }

    /// The file that takes the ids of its processes.
    pub fn tasks(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is still in it keeps it; the test that left it there has failed already.
        let _ = fs::remove_dir(&self.0);
    }
}
