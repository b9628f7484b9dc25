//! From a container of the API to a container of the runtime: image, environment, user, limits, mounts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_containers::{
    ContainerId, ContainerSpec, Error as RuntimeError, Image, Resources, Seccomp, User,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

use crate::env::{self, EnvError, expand};
use crate::events::Severity;
use crate::field::Addresses;
use crate::node::Node;
use crate::objects::Snapshot;
use crate::pod;
use crate::resolv;
use crate::resources::{CPU_PERIOD_MICROS, Limits};
use crate::state::Exit;
use crate::volumes::mounts::{Managed, MountError, mounts};

/// Where a container writes why it ended, unless it says otherwise (Kubernetes default).
const TERMINATION_PATH_DEFAULT: &str = "/dev/termination-log";
/// Exit code of a container that could not be started (as container runtimes report it).
const START_ERROR_CODE: i32 = 128;

/// Everything needed to start one instance.
pub(crate) struct Launch {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    pub(crate) ip: std::net::IpAddr,
    pub(crate) objects: Snapshot,
    /// The instance before, whose remains may go.
    pub(crate) previous: Option<String>,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) id: String,
    pub(crate) image_id: String,
    pub(crate) started_at: Timestamp,
}

/// Why no container runs.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// The image is not here.
    Image { reason: &'static str, message: String },
    /// Nothing was created.
    Create { reason: &'static str, message: String },
    /// An instance was created and ended at once.
    Start { image_id: String, exit: Exit, message: String },
}

// === impl Launch ===

impl Launch {
    /// Creates and starts the instance, reporting each step as an event.
    pub(crate) async fn run(&self) -> Result<Launched, LaunchError> {
        let image = self.image().await?;
        let spec =
            self.spec(&image).await.map_err(|message| self.refused("CreateContainerConfigError", message))?;
        let created = self.node.runtime.create_container(spec).await;
        let id = created
            .map_err(|error| self.refused(error.reason(), base_types::ErrorChain(&error).to_string()))?;
        let name = &self.container.name;
        self.event(Severity::Normal, "Created", format!("Created container: {name}"));
        if let Err(error) = self.node.runtime.start_container(&id).await {
            return Err(self.not_started(&id, image.id, &error).await);
        }
        self.event(Severity::Normal, "Started", format!("Started container {name}"));
        self.discard_previous().await;
        let started_at = match self.node.runtime.container_status(&id).await {
            Ok(status) => match status.state {
                cluster_containers::ContainerState::Running { started_at, .. } => started_at,
                cluster_containers::ContainerState::Exited(exit) => {
                    exit.started_at.unwrap_or(exit.finished_at)
                }
                cluster_containers::ContainerState::Created => Timestamp::now(),
            },
            Err(_) => Timestamp::now(),
        };
        Ok(Launched { id: id.to_string(), image_id: image.id, started_at })
    }

    async fn not_started(&self, id: &ContainerId, image_id: String, error: &RuntimeError) -> LaunchError {
        let message = base_types::ErrorChain(error).to_string();
        self.event(Severity::Warning, "Failed", format!("Error: {message}"));
        if !matches!(error, RuntimeError::Start(_)) {
            let _removed = self.node.runtime.remove_container(id).await;
            return LaunchError::Create { reason: error.reason(), message };
        }
        let now = Timestamp::now();
        let exit = Exit {
            id: id.to_string(),
            code: START_ERROR_CODE,
            reason: "StartError".to_owned(),
            message: message.clone(),
            started_at: now,
            finished_at: now,
        };
        LaunchError::Start { image_id, exit, message }
    }

    fn refused(&self, reason: &'static str, message: String) -> LaunchError {
        self.event(Severity::Warning, "Failed", format!("Error: {message}"));
        LaunchError::Create { reason, message }
    }

    fn event(&self, severity: Severity, reason: &str, message: String) {
        self.node.events.container(&self.pod, &self.container.name, severity, reason, message);
    }

    /// The container's image; images are never pulled here, they are loaded.
    async fn image(&self) -> Result<Image, LaunchError> {
        let name = self.container.image.as_deref().unwrap_or_default();
        let error = match self.node.runtime.images().resolve(name).await {
            Ok(Some(image)) => {
                let message = format!("Container image \"{name}\" already present on machine");
                self.event(Severity::Normal, "Pulled", message);
                return Ok(image);
            }
            Ok(None) if self.container.image_pull_policy.as_deref() == Some("Never") => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                self.event(Severity::Warning, "ErrImageNeverPull", message.clone());
                self.event(Severity::Warning, "Failed", "Error: ErrImageNeverPull".to_owned());
                return Err(LaunchError::Image { reason: "ErrImageNeverPull", message });
            }
            Ok(None) => cluster_containers::ImageError::Missing { name: name.to_owned() },
            Err(error) => error,
        };
        let message = base_types::ErrorChain(&error).to_string();
        let reason = RuntimeError::Image(error).reason();
        let text = format!("Failed to pull image \"{name}\": {message}");
        self.event(Severity::Warning, "Failed", text);
        self.event(Severity::Warning, "Failed", format!("Error: {reason}"));
        Err(LaunchError::Image { reason, message })
    }

    /// The runtime's specification; errors are texts for `CreateContainerConfigError`.
    async fn spec(&self, image: &Image) -> Result<ContainerSpec, String> {
        let (pod, container) = (&self.pod, &self.container);
        let env = self.environment().map_err(|error| error.to_string())?;
        let pod_dir = self.node.pod_dir(pod::uid(pod));
        let managed = self
            .managed_files(&pod_dir)
            .map_err(|error| format!("cannot write files of the pod: {error}"))?;
        let mounts = mounts(&pod_dir, pod, container, &env, &managed)
            .map_err(|error: MountError| error.to_string())?;
        let of_pod = pod::spec(pod).and_then(|spec| spec.security_context.as_ref());
        let of_container = container.security_context.as_ref();
        let user = user(of_pod, of_container)?;
        self.check_root(of_pod, of_container, image, &user).await?;
        let words = |list: &Option<Vec<String>>| -> Vec<String> {
            let lookup =
                |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            list.iter().flatten().map(|word| expand(word, lookup)).collect()
        };
        let (command, args) = (words(&container.command), words(&container.args));
        let capabilities = of_container.and_then(|context| context.capabilities.as_ref());
        let unmasked = of_container.and_then(|context| context.proc_mount.as_deref()) == Some("Unmasked");
        Ok(ContainerSpec {
            name: container.name.clone(),
            pod_uid: pod::uid(pod).to_owned(),
            attempt: self.attempt,
            image: container.image.clone().unwrap_or_default(),
            command,
            args,
            env,
            cwd: container.working_dir.clone().filter(|path| !path.is_empty()),
            user,
            readonly_rootfs: of_container.and_then(|context| context.read_only_root_filesystem) == Some(true),
            privileged: of_container.and_then(|context| context.privileged) == Some(true),
            caps_add: capabilities.and_then(|list| list.add.clone()).unwrap_or_default(),
            caps_drop: capabilities.and_then(|list| list.drop.clone()).unwrap_or_default(),
            no_new_privileges: of_container.and_then(|context| context.allow_privilege_escalation)
                == Some(false),
            seccomp: seccomp(of_pod, of_container)?,
            mounts,
            resources: self.resources(),
            log_path: self.node.log_path(pod, &container.name, self.attempt),
            tty: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            masked_paths: unmasked.then(Vec::new),
            readonly_paths: unmasked.then(Vec::new),
            ..ContainerSpec::default()
        })
    }

    fn environment(&self) -> Result<Vec<(String, String)>, EnvError> {
        let pod = &self.pod;
        let links = pod::spec(pod).and_then(|spec| spec.enable_service_links).unwrap_or(true);
        let services = self.node.services.state();
        let services = env::service_variables(services.iter().map(AsRef::as_ref), pod::namespace(pod), links);
        let sources = env::Sources {
            pod,
            addresses: Addresses { pod: Some(self.ip), host: self.node.ip },
            allocatable: &self.node.capacity,
            objects: &self.objects,
            services: &services,
        };
        let mut env = env::build(&self.container, &sources)?;
        if env.iter().all(|(name, _)| name != "HOSTNAME") {
            env.insert(0, ("HOSTNAME".to_owned(), resolv::hostname(pod, &self.node.name)));
        }
        Ok(env)
    }

    fn managed_files(&self, pod_dir: &Path) -> io::Result<Managed> {
        let hostname = resolv::hostname(&self.pod, &self.node.name);
        let put = |name: &str, text: String| -> io::Result<PathBuf> {
            let path = pod_dir.join(name);
            fs::create_dir_all(pod_dir)?;
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                fs::write(&path, text)?;
            }
            Ok(path)
        };
        let inside = termination_path(&self.container).to_owned();
        let outside = termination_file(pod_dir, &self.container.name, self.attempt);
        if let Some(parent) = outside.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&outside, "")?;
        fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        Ok(Managed {
            hosts: put("etc-hosts", resolv::hosts(&self.pod, self.ip, &hostname, &self.node.dns))?,
            resolv_conf: put("resolv.conf", resolv::resolv_conf(&self.pod, &self.node.dns))?,
            hostname: put("hostname", format!("{hostname}\n"))?,
            termination: (inside, outside),
        })
    }

    /// Refuses root where the pod forbids it.
    async fn check_root(
        &self,
        of_pod: Option<&PodSecurityContext>,
        of_container: Option<&SecurityContext>,
        image: &Image,
        user: &User,
    ) -> Result<(), String> {
        let forbidden = of_container
            .and_then(|context| context.run_as_non_root)
            .or_else(|| of_pod.and_then(|context| context.run_as_non_root));
        if forbidden != Some(true) {
            return Ok(());
        }
        let place = format!(
            "(pod: \"{}_{}({})\", container: {})",
            pod::name(&self.pod),
            pod::namespace(&self.pod),
            pod::uid(&self.pod),
            self.container.name
        );
        match user.uid {
            Some(0) => Err(format!("container's runAsUser breaks non-root policy {place}")),
            Some(_) => Ok(()),
            None => {
                let found = self.node.runtime.images().user_of(image).await;
                let (uid, _, _) = found.map_err(|error| base_types::ErrorChain(&error).to_string())?;
                if uid == 0 {
                    return Err(format!("container has runAsNonRoot and image will run as root {place}"));
                }
                Ok(())
            }
        }
    }

    fn resources(&self) -> Resources {
        let limits = Limits::of(&self.pod, &self.container, self.node.memory_bytes);
        Resources {
            cpu_shares: Some(limits.cpu_shares),
            cpu_quota_us: limits.cpu_quota_micros,
            cpu_period_us: limits.cpu_quota_micros.map(|_| CPU_PERIOD_MICROS),
            memory_limit: limits.memory_bytes,
            pids_limit: None,
            oom_score_adj: Some(limits.oom_score_adj),
        }
    }

    /// Frees what the instance before left, and logs older than that one's.
    async fn discard_previous(&self) {
        if let Some(id) = self.previous.as_deref().and_then(ContainerId::parse)
            && let Err(error) = self.node.runtime.remove_container(&id).await
        {
            tracing::debug!(%id, %error, "Old container not removed");
        }
        if let Some(old) = self.attempt.checked_sub(2) {
            let _absent = fs::remove_file(self.node.log_path(&self.pod, &self.container.name, old));
            let pod_dir = self.node.pod_dir(pod::uid(&self.pod));
            let _absent = fs::remove_file(termination_file(&pod_dir, &self.container.name, old));
        }
    }
}

fn termination_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_PATH_DEFAULT)
}

/// The file outside of the container that receives its termination message.
pub(crate) fn termination_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(format!("termination-{attempt}"))
}

fn user(of_pod: Option<&PodSecurityContext>, of_container: Option<&SecurityContext>) -> Result<User, String> {
    let id = |value: Option<i64>| -> Result<Option<u32>, String> {
        value
            .map(|value| u32::try_from(value).map_err(|_| format!("invalid user or group id {value}")))
            .transpose()
    };
    let either = |container: Option<i64>, pod: Option<i64>| id(container.or(pod));
    let groups = of_pod.and_then(|context| context.supplemental_groups.clone()).unwrap_or_default();
    let groups = groups.into_iter().chain(of_pod.and_then(|context| context.fs_group));
    Ok(User {
        uid: either(
            of_container.and_then(|context| context.run_as_user),
            of_pod.and_then(|context| context.run_as_user),
        )?,
        gid: either(
            of_container.and_then(|context| context.run_as_group),
            of_pod.and_then(|context| context.run_as_group),
        )?,
        supplemental: groups
            .map(|group| id(Some(group)))
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?,
    })
}

fn seccomp(
    of_pod: Option<&PodSecurityContext>,
    of_container: Option<&SecurityContext>,
) -> Result<Seccomp, String> {
    let profile = of_container
        .and_then(|context| context.seccomp_profile.as_ref())
        .or_else(|| of_pod.and_then(|context| context.seccomp_profile.as_ref()));
    match profile.map(|profile| profile.type_.as_str()) {
        None | Some("Unconfined") => Ok(Seccomp::Unconfined),
        Some("RuntimeDefault") => Ok(Seccomp::RuntimeDefault),
        Some(other) => Err(format!("seccomp profile type \"{other}\" is not supported on this node")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_overrides_the_pod() {
        let pod: PodSecurityContext = serde_json::from_value(json!({
            "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 1337, "supplementalGroups": [5],
            "seccompProfile": {"type": "RuntimeDefault"}}))
        .unwrap();
        let own: SecurityContext =
            serde_json::from_value(json!({"runAsUser": 1337, "seccompProfile": {"type": "Unconfined"}}))
                .unwrap();
        let both = user(Some(&pod), Some(&own)).unwrap();
        assert_eq!((both.uid, both.gid, both.supplemental), (Some(1337), Some(2000), vec![5, 1337]));
        assert_eq!(seccomp(Some(&pod), None), Ok(Seccomp::RuntimeDefault));
        assert_eq!(seccomp(Some(&pod), Some(&own)), Ok(Seccomp::Unconfined));
        let local: SecurityContext =
            serde_json::from_value(json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}))
                .unwrap();
        assert!(user(None, Some(&local)).is_err() && seccomp(None, Some(&local)).is_err());
    }
}
