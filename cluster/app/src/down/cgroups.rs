//! Killing every process of a cluster by its cgroups, and removing those, in hierarchies of either version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as signal};
use nix::unistd::Pid;

const ROOT: &str = "/sys/fs/cgroup";
/// Killed processes leave their cgroup when their parents or the kernel have reaped them.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills what is in the cgroups called `name`, directly below each hierarchy's root, and removes them.
pub(super) fn kill(name: &str) -> Result<()> {
    kill_below(Path::new(ROOT), name, EMPTY_TIMEOUT)
}

fn kill_below(root: &Path, name: &str, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let mut left = Vec::new();
        for tree in hierarchies(root).into_iter().map(|root| root.join(name)).filter(|tree| tree.is_dir()) {
            for group in deepest_first(&tree) {
                thaw(&group);
                kill_members(&group)?;
                if let Err(error) = fs::remove_dir(&group)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    left.push(group);
                }
            }
        }
        let Some(first) = left.first() else { return Ok(()) };
        if Instant::now() >= deadline {
            bail!("processes in {} do not end", first.display());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The root itself (version 2) and every directory in it (version 1, and version 2 beside it).
fn hierarchies(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    if let Ok(entries) = fs::read_dir(root) {
        all.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    all
}

fn deepest_first(tree: &Path) -> Vec<PathBuf> {
    let mut groups = vec![tree.to_owned()];
    let mut next = 0;
    while let Some(group) = groups.get(next).cloned() {
        next += 1;
        if let Ok(entries) = fs::read_dir(&group) {
            let directories =
                entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            groups.extend(directories.map(|entry| entry.path()));
        }
    }
    groups.reverse();
    groups
}

/// A frozen process cannot die. Hierarchies without these files have nothing to thaw.
fn thaw(group: &Path) {
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let path = group.join(file);
        if path.exists()
            && let Err(error) = fs::write(&path, value)
        {
            eprintln!("cluster: cannot thaw {}: {error}", path.display());
        }
    }
}

fn kill_members(group: &Path) -> Result<()> {
    let members = match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(members) => members,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", group.display())),
    };
    for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        match signal(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot kill process {pid}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_group_is_emptied_and_removed_with_its_children() {
        let name = format!("cluster-unit-{}", std::process::id());
        let pids = Path::new(ROOT).join("pids");
        let root = if pids.is_dir() { pids } else { ROOT.into() };
        let group = root.join(&name).join("node1/pod");
        fs::create_dir_all(&group).unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        kill(&name).unwrap();
        assert!(!root.join(&name).exists());
        assert!(!reaper.join().unwrap().success());
        kill(&name).unwrap();
    }
}
