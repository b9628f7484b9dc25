//! Turns a container's spec and its image into an OCI bundle configuration. Pure: everything it must know of the machine is passed in.

mod capabilities;
mod devices;
mod mounts;

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};

use crate::cgroup::DeviceRule;
use crate::error::Error;
use crate::image::Image;
use crate::seccomp;
use crate::spec::{ContainerSpec, SandboxSpec, Seccomp};

pub(crate) use self::devices::{HostDevice, host_devices};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hidden from containers: they tell of, or reach, the machine. The list of containerd.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Visible but not writable. The list of containerd.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// All that decides a bundle.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) image: &'a Image,
    /// uid, gid, further groups.
    pub(crate) user: (u32, u32, Vec<u32>),
    pub(crate) sandbox: &'a SandboxSpec,
    /// Where the sandbox's namespaces and `/dev/shm` are.
    pub(crate) sandbox_dir: &'a Path,
    pub(crate) cgroup: &'a str,
    /// Controller directories to show below `/sys/fs/cgroup`.
    pub(crate) cgroup_views: Vec<(String, PathBuf)>,
    /// Device nodes beyond the standard ones, looked up on the host.
    pub(crate) devices: Vec<HostDevice>,
    pub(crate) limits: HostLimits,
}

/// What this process may hand out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    /// Hard limit of open files.
    pub(crate) nofile: u64,
    /// Lowest `oom_score_adj` this process may set; `None` if it may set any.
    pub(crate) oom_score_adj_min: Option<i32>,
    /// The kernel enforces device rules.
    pub(crate) devices: bool,
}

/// A bundle's configuration and the device rules of its cgroup.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) spec: Spec,
    pub(crate) device_rules: Vec<DeviceRule>,
}

/// Writes the configuration.
pub(crate) fn bundle(input: &Input<'_>) -> Result<Bundle, Error> {
    let spec = input.spec;
    let mut capabilities =
        capabilities::wanted(spec.privileged, &spec.caps_add, &spec.caps_drop).map_err(Error::Invalid)?;
    if !input.limits.devices && !spec.privileged {
        // Nothing would keep a node made with it from reaching the host's disk.
        capabilities.retain(|name| name != "CAP_MKNOD");
    }
    build(input, &capabilities)
        .map_err(|error| Error::Invalid(format!("cannot write the bundle: {error}")))?
}

fn build(input: &Input<'_>, capabilities: &[String]) -> Result<Result<Bundle, Error>, OciSpecError> {
    let spec = input.spec;
    let args = arguments(spec, input.image);
    if args.is_empty() || args[0].is_empty() {
        return Ok(Err(Error::Invalid(
            "no command specified: neither the image nor the pod names one".into(),
        )));
    }
    let process = process(input, args, capabilities)?;
    let paths = |own: &Option<Vec<String>>, usual: &[&str]| match own {
        _ if spec.privileged => Vec::new(),
        Some(own) => own.clone(),
        None => usual.iter().map(|p| (*p).to_owned()).collect(),
    };
    let mut readonly = paths(&spec.readonly_paths, &READONLY);
    if !spec.privileged {
        readonly.push("/sys/fs/cgroup".into());
    }
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(input)?)
        .cgroups_path(Path::new("/").join(input.cgroup))
        .masked_paths(paths(&spec.masked_paths, &MASKED))
        .readonly_paths(readonly)
        .devices(devices::nodes(&input.devices)?)
        .rootfs_propagation("rslave")
        .build()?;
    linux.set_resources(Some(devices::resources(spec.privileged, &input.devices)?));
    if spec.seccomp == Seccomp::RuntimeDefault && !spec.privileged {
        linux.set_seccomp(Some(seccomp::runtime_default(capabilities)?));
    }
    let root = RootBuilder::default().path("rootfs").readonly(spec.readonly_rootfs).build()?;
    let mut oci = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .mounts(mounts::all(input)?)
        .process(process)
        .linux(linux)
        .annotations(spec.annotations.clone().into_iter().collect::<std::collections::HashMap<_, _>>())
        .build()?;
    oci.set_hostname(None);
    Ok(Ok(Bundle { spec: oci, device_rules: devices::rules(spec.privileged, &input.devices) }))
}

/// Kubernetes: `command` replaces entrypoint and cmd, `args` replaces cmd.
fn arguments(spec: &ContainerSpec, image: &Image) -> Vec<String> {
    let mut args = spec.command.clone();
    if args.is_empty() {
        args.clone_from(&image.config.entrypoint);
        if spec.args.is_empty() {
            args.extend(image.config.cmd.iter().cloned());
        }
    }
    args.extend(spec.args.iter().cloned());
    args
}

fn process(input: &Input<'_>, args: Vec<String>, capabilities: &[String]) -> Result<Process, OciSpecError> {
    let (spec, (uid, gid, groups)) = (input.spec, &input.user);
    let set: std::collections::HashSet<Capability> =
        capabilities.iter().filter_map(|name| serde_json::from_value(name.as_str().into()).ok()).collect();
    let none = std::collections::HashSet::new();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(none.clone())
        .ambient(none)
        .build()?;
    let user = UserBuilder::default().uid(*uid).gid(*gid).additional_gids(groups.clone()).build()?;
    let nofile = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .hard(input.limits.nofile)
        .soft(input.limits.nofile)
        .build()?;
    let cwd = spec.cwd.clone().filter(|cwd| !cwd.is_empty());
    let cwd = cwd.unwrap_or_else(|| input.image.config.working_dir.clone());
    let mut process = ProcessBuilder::default()
        .terminal(spec.tty)
        .user(user)
        .args(args)
        .env(environment(input))
        .cwd(Path::new("/").join(cwd))
        .capabilities(capabilities)
        .rlimits(vec![nofile])
        .no_new_privileges(spec.no_new_privileges)
        .build()?;
    if let Some(wanted) = spec.resources.oom_score_adj {
        process.set_oom_score_adj(Some(wanted.max(input.limits.oom_score_adj_min.unwrap_or(-1000))));
    }
    Ok(process)
}

/// The image's environment, then the pod's; later entries replace earlier ones of the same name.
fn environment(input: &Input<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name = entry.split('=').next().unwrap_or_default().len();
        let same = |other: &String| other.len() > name && other[..=name] == entry[..=name];
        match env.iter().position(same) {
            Some(at) => env[at] = entry,
            None => env.push(entry),
        }
    };
    set(DEFAULT_PATH.to_owned());
    set(format!("HOSTNAME={}", input.sandbox.hostname));
    if input.spec.tty {
        set("TERM=xterm".to_owned());
    }
    for entry in input.image.config.env.iter().filter(|entry| entry.contains('=')) {
        set(entry.clone());
    }
    for (name, value) in &input.spec.env {
        set(format!("{name}={value}"));
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", if input.user.0 == 0 { "/root" } else { "/" }));
    }
    env
}

fn namespaces(input: &Input<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let namespace = |kind, path: Option<PathBuf>| {
        let builder = LinuxNamespaceBuilder::default().typ(kind);
        match path {
            Some(path) => builder.path(path).build(),
            None => builder.build(),
        }
    };
    let (sandbox, dir) = (input.sandbox, input.sandbox_dir);
    let mut all = vec![
        namespace(LinuxNamespaceType::Mount, None)?,
        namespace(LinuxNamespaceType::Uts, Some(dir.join("uts")))?,
    ];
    if !sandbox.host_ipc {
        all.push(namespace(LinuxNamespaceType::Ipc, Some(dir.join("ipc")))?);
    }
    if !sandbox.net_ns.as_os_str().is_empty() {
        all.push(namespace(LinuxNamespaceType::Network, Some(sandbox.net_ns.clone()))?);
    }
    if !sandbox.host_pid {
        let shared = sandbox.share_pid.then(|| dir.join("pid"));
        all.push(namespace(LinuxNamespaceType::Pid, shared)?);
    }
    if input.cgroup_views.iter().any(|(name, _)| name.is_empty()) {
        all.push(namespace(LinuxNamespaceType::Cgroup, None)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
