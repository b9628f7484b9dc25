//! Making containers: records, writable layers, bundles, cgroups. Nothing runs yet.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use jiff::Timestamp;

use super::containers::{Container, Phase};
use super::{Inner, path_error, set_mode};
use crate::bundle::{self, HostLimits};
use crate::error::Error;
use crate::image::{EMPTY_LAYER, Image, ImageError, layer_dir};
use crate::record::{self, ContainerRecord, PidNamespace, Rootfs, SandboxRecord, ShimConfig};
use crate::spec::ContainerSpec;
use crate::status::ContainerId;

impl Inner {
    /// Writes everything a container needs; blocking.
    pub(super) fn make_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        let sandbox = self.sandboxes.lock().get(&spec.pod_uid).cloned();
        let sandbox = sandbox.ok_or_else(|| Error::NoSandbox(spec.pod_uid.clone()))?;
        if let Some(known) = self.same(&spec) {
            return Ok(known);
        }
        let image = self.images.resolve_now(&spec.image)?;
        let image = image.ok_or_else(|| ImageError::Missing { name: spec.image.clone() })?;
        let id = random_id()?;
        let cgroup = format!("{}/{id}", sandbox.cgroup);
        let record = ContainerRecord {
            id: id.clone(),
            owner: self.config.cgroup_parent.clone(),
            spec,
            image_id: image.id.clone(),
            layers: image.layers.clone(),
            created_at: Timestamp::now(),
            cgroup,
        };
        if let Err(error) = self.write_container(&record, &sandbox, &image) {
            // What cannot be removed now is removed when the runtime is opened again.
            let _ = self.remove_files(&id);
            for dir in self.cgroups.dirs(&record.cgroup) {
                let _ = fs::remove_dir(dir);
            }
            return Err(error);
        }
        self.containers.lock().insert(id.clone(), Container::new(record, Phase::Created));
        Ok(ContainerId(id))
    }

    fn same(&self, spec: &ContainerSpec) -> Option<ContainerId> {
        let containers = self.containers.lock();
        let same = |other: &&Arc<Container>| {
            let other = &other.record.spec;
            (&other.pod_uid, &other.name, other.attempt) == (&spec.pod_uid, &spec.name, spec.attempt)
        };
        containers.values().find(same).map(|container| container.id())
    }

    /// The record comes first and `shim.json` last: one without the other is removed at the next opening.
    fn write_container(
        &self,
        record: &ContainerRecord,
        sandbox: &SandboxRecord,
        image: &Image,
    ) -> Result<(), Error> {
        let (spec, dir) = (&record.spec, self.container_dir(&record.id));
        let fresh = dir.with_file_name(format!(".{}", record.id));
        fs::create_dir_all(fresh.join("rootfs")).map_err(path_error("make", &fresh))?;
        let path = fresh.join(record::RECORD);
        record::write(&path, record).map_err(path_error("write", &path))?;
        fs::rename(&fresh, &dir).map_err(path_error("make", &dir))?;
        self.make_layer(record)?;
        let bundle = bundle::bundle(&bundle::Input {
            spec,
            image,
            user: self.user(spec, image)?,
            sandbox: &sandbox.spec,
            sandbox_dir: &self.sandbox_dir(&sandbox.spec.uid),
            cgroup: &record.cgroup,
            cgroup_views: self.cgroups.views(&record.cgroup),
            devices: bundle::host_devices(spec)?,
            limits: self.limits,
        })?;
        self.cgroups.create(&record.cgroup, &spec.resources, Some(&bundle.device_rules))?;
        let path = dir.join(record::CONFIG);
        record::write(&path, &bundle.spec).map_err(path_error("write", &path))?;
        let path = dir.join(record::SHIM);
        let shim = self.shim_config(record, sandbox)?;
        record::write(&path, &shim).map_err(path_error("write", &path))
    }

    /// The writable layer. Its root directory is the one the container sees, so it looks like the image's.
    fn make_layer(&self, record: &ContainerRecord) -> Result<(), Error> {
        let snapshot = self.snapshot_dir(&record.id);
        for part in ["upper", "work"] {
            let path = snapshot.join(part);
            fs::create_dir_all(&path).map_err(path_error("make", &path))?;
        }
        let upper = snapshot.join("upper");
        let top = record.layers.last().map_or(Ok(EMPTY_LAYER), |digest| layer_dir(digest))?;
        let top = self.images.layers_dir().join(top);
        let like = fs::metadata(&top).map_err(path_error("find the image's layer", &top))?;
        set_mode(&upper, like.mode() & 0o7777)?;
        std::os::unix::fs::chown(&upper, Some(like.uid()), Some(like.gid()))
            .map_err(path_error("give", &upper))
    }

    fn shim_config(&self, record: &ContainerRecord, sandbox: &SandboxRecord) -> Result<ShimConfig, Error> {
        let spec = &record.spec;
        let mut lower = record
            .layers
            .iter()
            .rev()
            .map(|d| layer_dir(d).map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()?;
        if lower.is_empty() {
            lower.push(EMPTY_LAYER.to_owned());
        }
        let snapshot = self.snapshot_dir(&record.id);
        let pid_namespace = match (sandbox.spec.host_pid, sandbox.spec.share_pid) {
            (true, _) => PidNamespace::Host,
            (false, true) => PidNamespace::Shared(self.sandbox_dir(&sandbox.spec.uid).join("pid")),
            (false, false) => PidNamespace::Own,
        };
        let lives_on = !matches!(pid_namespace, PidNamespace::Own);
        Ok(ShimConfig {
            log_path: spec.log_path.clone(),
            stdin: spec.stdin,
            stdin_once: spec.stdin_once,
            tty: spec.tty,
            rootfs: Rootfs {
                layers_dir: self.images.layers_dir(),
                lower,
                upper: snapshot.join("upper"),
                work: snapshot.join("work"),
            },
            pid_namespace,
            cgroup: self.cgroups.entrance(&record.cgroup),
            oom_file: self.cgroups.oom_file(&record.cgroup),
            kill_file: if lives_on { self.cgroups.kill_file(&record.cgroup) } else { None },
            allow_devices: self.limits.devices || spec.privileged,
        })
    }

    /// The image's user with the pod's overrides.
    fn user(&self, spec: &ContainerSpec, image: &Image) -> Result<(u32, u32, Vec<u32>), Error> {
        let (uid, gid, groups) = self.images.user_now(image, spec.user.uid)?;
        let all: BTreeSet<u32> = groups.into_iter().chain(spec.user.supplemental.iter().copied()).collect();
        Ok((uid, spec.user.gid.unwrap_or(gid), all.into_iter().collect()))
    }
}

fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 32];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(Error::io("cannot read /dev/urandom"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// What this process may hand out to containers.
pub(super) fn host_limits(devices: bool) -> Result<HostLimits, Error> {
    /// Programs that walk all descriptors would otherwise take seconds. What systemd allows.
    const NOFILE_MAX: u64 = 1 << 20;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let (_, nofile) = limit.map_err(|e| Error::io("cannot read the limit of open files")(e.into()))?;
    let free =
        caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap_or(false);
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default().trim().parse().unwrap_or(0);
    let oom_score_adj_min = if free { None } else { Some(own) };
    Ok(HostLimits { nofile: nofile.min(NOFILE_MAX), oom_score_adj_min, devices })
}
