//! The mounts of a container: the standard ones, then those asked for. Pure.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use super::Input;
use crate::spec::MountKind;

const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

pub(super) fn all(input: &Input<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = standard(input)?;
    for mount in &input.spec.mounts {
        let mut options = mount.options.clone();
        options.push(if mount.readonly { "ro" } else { "rw" }.to_owned());
        let built = match mount.kind {
            MountKind::Bind => {
                if !options.iter().any(|option| PROPAGATION.contains(&option.as_str())) {
                    options.push("rprivate".to_owned());
                }
                options.insert(0, "rbind".to_owned());
                make("bind", &mount.host_path, &mount.container_path, options)?
            }
            MountKind::Tmpfs => {
                options.extend(["nosuid".to_owned(), "nodev".to_owned()]);
                make("tmpfs", Path::new("tmpfs"), &mount.container_path, options)?
            }
        };
        mounts.push(built);
    }
    Ok(mounts)
}

fn standard(input: &Input<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let plain = |kind: &str, target: &str, options: &str| {
        make(kind, Path::new(kind), Path::new(target), words(options))
    };
    let writable = if input.spec.privileged { "rw" } else { "ro" };
    let shm = if input.sandbox.host_ipc { PathBuf::from("/dev/shm") } else { input.sandbox_dir.join("shm") };
    let mut mounts = vec![
        plain("proc", "/proc", "nosuid noexec nodev")?,
        plain("tmpfs", "/dev", "nosuid strictatime mode=755 size=65536k")?,
        plain("devpts", "/dev/pts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5")?,
        plain("mqueue", "/dev/mqueue", "nosuid noexec nodev")?,
        make("bind", &shm, Path::new("/dev/shm"), words("rbind nosuid noexec nodev rprivate"))?,
        plain("sysfs", "/sys", &format!("nosuid noexec nodev {writable}"))?,
    ];
    if let [(name, _)] = input.cgroup_views.as_slice()
        && name.is_empty()
    {
        let options = format!("nosuid noexec nodev relatime {writable}");
        mounts.push(plain("cgroup2", "/sys/fs/cgroup", &options)?);
        return Ok(mounts);
    }
    mounts.push(plain("tmpfs", "/sys/fs/cgroup", "nosuid noexec nodev mode=755 size=64k")?);
    for (name, dir) in &input.cgroup_views {
        let target = Path::new("/sys/fs/cgroup").join(name);
        mounts.push(make(
            "bind",
            dir,
            &target,
            words(&format!("rbind nosuid noexec nodev rprivate {writable}")),
        )?);
    }
    Ok(mounts)
}

fn make(kind: &str, source: &Path, target: &Path, options: Vec<String>) -> Result<Mount, OciSpecError> {
    MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
}
