//! Device nodes of a container and the rules of its cgroup.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxResources, LinuxResourcesBuilder,
};

use crate::cgroup::DeviceRule;
use crate::error::Error;
use crate::spec::ContainerSpec;

/// More nodes than any `/dev` has. Own choice.
const DEVICES_MAX: usize = 4096;
/// Directories of `/dev` that are mounts of their own in a container.
const OWN_MOUNTS: [&str; 4] = ["pts", "shm", "mqueue", "hugepages"];

/// A device node of the host, looked up.
#[derive(Clone, Debug)]
pub(crate) struct HostDevice {
    path: PathBuf,
    block: bool,
    major: u64,
    minor: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    access: (bool, bool, bool),
}

/// The nodes a container asks for; all of `/dev` if it is privileged.
pub(crate) fn host_devices(spec: &ContainerSpec) -> Result<Vec<HostDevice>, Error> {
    let mut found = Vec::new();
    if spec.privileged {
        walk(Path::new("/dev"), &mut found);
    }
    for device in &spec.devices {
        let all = device.permissions.is_empty();
        let has = |letter| all || device.permissions.contains(letter);
        let known = look(&device.host_path, &device.container_path, (has('r'), has('w'), has('m')));
        let text = || format!("\"{}\" is not a device node of this node", device.host_path.display());
        found.push(known.ok_or_else(|| Error::Invalid(text()))?);
    }
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<HostDevice>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if found.len() >= DEVICES_MAX {
            return;
        }
        let own = OWN_MOUNTS.iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() && !own {
            walk(&path, found);
        } else if entry.file_name() != "ptmx" && entry.file_name() != "console" {
            found.extend(look(&path, &path, (true, true, true)));
        }
    }
}

fn look(host: &Path, container: &Path, access: (bool, bool, bool)) -> Option<HostDevice> {
    let meta = fs::symlink_metadata(host).ok()?;
    let block = meta.file_type().is_block_device();
    (block || meta.file_type().is_char_device()).then(|| HostDevice {
        path: container.to_owned(),
        block,
        major: libc::major(meta.rdev()).into(),
        minor: libc::minor(meta.rdev()).into(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access,
    })
}

pub(super) fn nodes(devices: &[HostDevice]) -> Result<Vec<LinuxDevice>, OciSpecError> {
    let node = |device: &HostDevice| {
        LinuxDeviceBuilder::default()
            .path(device.path.clone())
            .typ(if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
            .major(i64::try_from(device.major).unwrap_or(0))
            .minor(i64::try_from(device.minor).unwrap_or(0))
            .file_mode(device.mode)
            .uid(device.uid)
            .gid(device.gid)
            .build()
    };
    devices.iter().map(node).collect()
}

/// What the cgroup allows: making any node, and using the standard ones, terminals, and those asked for.
pub(super) fn rules(privileged: bool, devices: &[HostDevice]) -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access| DeviceRule { kind, major, minor, access };
    let all = (true, true, true);
    if privileged {
        return vec![rule('a', None, None, all)];
    }
    let make = (false, false, true);
    let mut rules = vec![rule('c', None, None, make), rule('b', None, None, make)];
    // null, zero, full, random, urandom; tty, console, ptmx; slaves.
    let standard = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
    rules.extend(standard.map(|(major, minor)| rule('c', Some(major), Some(minor), all)));
    rules.push(rule('c', Some(136), None, all));
    rules.extend(devices.iter().map(|device| {
        rule(if device.block { 'b' } else { 'c' }, Some(device.major), Some(device.minor), device.access)
    }));
    rules
}

/// The same rules for other OCI runtimes.
pub(super) fn resources(privileged: bool, devices: &[HostDevice]) -> Result<LinuxResources, OciSpecError> {
    let mut all = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?];
    for rule in rules(privileged, devices) {
        all.push(cgroup_rule(&rule)?);
    }
    LinuxResourcesBuilder::default().devices(all).build()
}

fn cgroup_rule(rule: &DeviceRule) -> Result<LinuxDeviceCgroup, OciSpecError> {
    let kind = match rule.kind {
        'b' => LinuxDeviceType::B,
        'c' => LinuxDeviceType::C,
        _ => LinuxDeviceType::A,
    };
    let text = rule.to_string();
    let access = text.rsplit(' ').next().unwrap_or_default().to_owned();
    let mut built = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access).build()?;
    built.set_major(rule.major.and_then(|n| i64::try_from(n).ok()));
    built.set_minor(rule.minor.and_then(|n| i64::try_from(n).ok()));
    Ok(built)
}
