//! Nothing of the process's memory, keys above all, may end in a file or another process's hands.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Forbids core dumps and tracing, and allows as many descriptors as the system lets us.
pub(crate) fn process() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
