//! Waking when a file grows: inotify as a future.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Watches one file.
pub(super) struct Growth {
    /// An inotify descriptor is read like a pipe.
    events: Receiver,
}

// === impl Growth ===

impl Growth {
    /// Starts to watch; changes from now on are seen.
    pub(super) fn watch(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // The file is renamed when it has become too long.
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF)?;
        Ok(Self { events: Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))? })
    }

    /// Completes when the file was written to or renamed since the last call. Cancel-safe.
    pub(super) async fn grown(&mut self) -> io::Result<()> {
        let mut events = [0; 4096];
        self.events.read(&mut events).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn writing_wakes() {
        let path = std::env::temp_dir().join(format!("kubelet-growth-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        let mut growth = Growth::watch(&path).unwrap();
        file.write_all(b"x").unwrap();
        tokio::time::timeout(Duration::from_secs(10), growth.grown()).await.unwrap().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(50), growth.grown()).await;
        assert!(quiet.is_err(), "nothing more was written");
        std::fs::remove_file(path).unwrap();
    }
}
