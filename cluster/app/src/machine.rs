//! What the machine must offer before anything is started, each with the fix in its message.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cluster_network::NetNs;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access, geteuid};

const CGROUPS: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Below this the store could not even write its first checkpoint beside an image.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// With less the kubelets report disk pressure, and no pod is scheduled (Kubernetes' default for `nodefs.available`).
const FREE_PERCENT_MIN: u64 = 10;

/// Checks rights, kernel features and programs.
pub(crate) fn check() -> Result<()> {
    require_root()?;
    check_controllers(Path::new(CGROUPS))?;
    let filesystems = fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?;
    if !filesystems.lines().any(|line| line.trim_end().ends_with("overlay")) {
        bail!("this kernel has no overlayfs, which containers need: load it with `modprobe overlay`");
    }
    cluster_network::check_tools().context("a program is missing")?;
    Ok(())
}

/// Only root may make namespaces, mounts and cgroups.
pub(crate) fn require_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!("the cluster makes namespaces, mounts and cgroups and must run as root: use `sudo`");
    }
    Ok(())
}

/// Creates the two directories, for root alone, and checks that there is room.
pub(crate) fn prepare_directories(data_dir: &Path, run_dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    for directory in [data_dir, run_dir] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        // Containers of other users are bind-mounted from below; they may pass, not look.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711))
            .with_context(|| format!("cannot set the mode of {}", directory.display()))?;
    }
    let stat = statvfs(data_dir).with_context(|| format!("cannot look at {}", data_dir.display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let all = stat.blocks().saturating_mul(stat.fragment_size());
    let needed = FREE_BYTES_MIN.max(all / 100 * FREE_PERCENT_MIN);
    if free < needed {
        bail!(
            "disk full: {} has {} of {} MiB free, the cluster needs at least {} MiB ({FREE_PERCENT_MIN} %, or no pod is scheduled); \
             free some space or choose another --data-dir",
            data_dir.display(),
            free >> 20,
            all >> 20,
            needed.div_ceil(1 << 20)
        );
    }
    Ok(())
}

/// As many open files as the machine allows: every connection, log and watch is one.
pub(crate) fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, "Limit of open files stays at {soft}");
    }
}

/// Listens on 127.0.0.1 of the machine. `flag` is the option that chooses another port.
pub(crate) fn listen(host: &NetNs, port: u16, flag: &str) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    host.listen_blocking(address).with_context(|| {
        format!(
            "cannot listen on {address}: if another program uses port {port}, choose a free one with {flag}"
        )
    })
}

/// Finds the controllers in a tree of either version, or a mixed one, where groups can be made.
fn check_controllers(root: &Path) -> Result<()> {
    let unified = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if unified.is_empty() && fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none()) {
        bail!(
            "no cgroups are mounted under {0}, so containers could not be limited: mount them with `mount -t cgroup2 none {0}`",
            root.display()
        );
    }
    for controller in CONTROLLERS {
        let in_unified = unified.split_whitespace().any(|name| name == controller);
        let tree = if in_unified { root.to_owned() } else { root.join(controller) };
        if !in_unified && !tree.join("cgroup.procs").exists() {
            bail!(
                "cgroup controller `{controller}` is not available under {0}: boot with `cgroup_enable={controller}`, or mount it with \
                 `mkdir -p {1}; mount -t cgroup -o {controller} none {1}`",
                root.display(),
                tree.display()
            );
        }
        if access(&tree, AccessFlags::W_OK) == Err(Errno::EROFS) {
            bail!(
                "{0} is read-only, so containers could not be limited: `mount -o remount,rw {0}`, or, in a container, give it the right to \
                 (`--privileged`)",
                tree.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_both_versions_are_found_and_a_missing_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io pids\n").unwrap();
        let error = check_controllers(root.path()).unwrap_err().to_string();
        assert!(error.contains("`memory`"), "{error}");
        fs::create_dir(root.path().join("memory")).unwrap();
        fs::write(root.path().join("memory/cgroup.procs"), "").unwrap();
        check_controllers(root.path()).unwrap();
    }

    #[test]
    fn a_port_in_use_names_port_and_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        // This test's own namespace stands for the machine.
        let host = NetNs::current().unwrap();
        if !geteuid().is_root() {
            panic!("run these tests as root: they enter namespaces");
        }
        let error = format!("{:#}", listen(&host, port, "--api-port").unwrap_err());
        assert!(error.contains(&port.to_string()) && error.contains("--api-port"), "{error}");
    }

    #[test]
    fn directories_are_made_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let (data, run) = (root.path().join("a/data"), root.path().join("run"));
        prepare_directories(&data, &run).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o711);
    }
}
