//! What is mounted into a container: its volume mounts and the files the kubelet manages.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use cluster_containers::{Mount, MountKind};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::env::expand;
use crate::pod;

/// Files the kubelet writes for a container, by their path inside it.
pub(crate) struct Managed {
    pub(crate) hosts: PathBuf,
    pub(crate) resolv_conf: PathBuf,
    pub(crate) hostname: PathBuf,
    /// Path inside and file outside of the termination message.
    pub(crate) termination: (String, PathBuf),
}

/// A mount the container asks for cannot be made; shown as `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("volume \"{0}\" of mount \"{1}\" is not part of the pod")]
    NoVolume(String, String),
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container: {reason}")]
    SubPath { volume: String, reason: String },
}

/// All mounts of `container`, volumes in the order written, then the managed files that no volume hides.
pub(crate) fn mounts(
    pod_dir: &Path,
    pod: &Pod,
    container: &Container,
    env: &[(String, String)],
    managed: &Managed,
) -> Result<Vec<Mount>, MountError> {
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        mounts.push(volume_mount(pod_dir, pod, wanted, env)?);
    }
    let files = [
        ("/etc/hosts", &managed.hosts),
        ("/etc/resolv.conf", &managed.resolv_conf),
        ("/etc/hostname", &managed.hostname),
        (managed.termination.0.as_str(), &managed.termination.1),
    ];
    for (inside, outside) in files {
        if mounts.iter().all(|mount| mount.container_path != Path::new(inside)) {
            mounts.push(bind(outside.clone(), inside, false, Vec::new()));
        }
    }
    Ok(mounts)
}

fn bind(host_path: PathBuf, container_path: &str, readonly: bool, options: Vec<String>) -> Mount {
    Mount { kind: MountKind::Bind, host_path, container_path: container_path.into(), readonly, options }
}

fn volume_mount(
    pod_dir: &Path,
    pod: &Pod,
    wanted: &VolumeMount,
    env: &[(String, String)],
) -> Result<Mount, MountError> {
    let volumes = pod::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let volume = volumes
        .iter()
        .find(|volume| volume.name == wanted.name)
        .ok_or_else(|| MountError::NoVolume(wanted.name.clone(), wanted.mount_path.clone()))?;
    let mut source = match &volume.host_path {
        Some(host) => PathBuf::from(&host.path),
        None => super::directory(pod_dir, &volume.name),
    };
    let expression = wanted.sub_path_expr.as_deref().filter(|text| !text.is_empty());
    let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let sub_path = match expression {
        Some(expression) => Some(expand(expression, lookup)),
        None => wanted.sub_path.clone().filter(|path| !path.is_empty()),
    };
    if let Some(sub_path) = sub_path {
        let writable = volume.empty_dir.is_some() || volume.host_path.is_some();
        source = resolve_sub_path(&source, &sub_path, writable).map_err(|error| MountError::SubPath {
            volume: wanted.name.clone(),
            reason: error.to_string(),
        })?;
    }
    // Volumes with contents of the API's are read-only whatever the mount says, as in Kubernetes.
    let contents = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some();
    let options = match wanted.mount_propagation.as_deref() {
        Some("HostToContainer") => vec!["rslave".to_owned()],
        Some("Bidirectional") => vec!["rshared".to_owned()],
        _ => Vec::new(),
    };
    Ok(bind(source, &wanted.mount_path, contents || wanted.read_only == Some(true), options))
}

/// The file or directory `sub_path` below `root`, made as a directory when absent and `create`; never outside of `root`, links included.
fn resolve_sub_path(root: &Path, sub_path: &str, create: bool) -> io::Result<PathBuf> {
    let refuse = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    if !Path::new(sub_path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(refuse("subPath must be a relative path without '..'"));
    }
    let root = fs::canonicalize(root)?;
    let mut at = root.clone();
    for part in Path::new(sub_path).components() {
        let next = at.join(part);
        at = match fs::canonicalize(&next) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                // A dangling link is found by lstat and not followed.
                if fs::symlink_metadata(&next).is_ok() {
                    return Err(refuse("subPath is a link to nothing"));
                }
                fs::create_dir(&next)?;
                next
            }
            Err(error) => return Err(error),
        };
        if !at.starts_with(&root) {
            return Err(refuse("subPath leaves the volume"));
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("kubelet-mounts-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        fs::canonicalize(directory).unwrap()
    }

    #[test]
    fn a_sub_path_stays_inside_its_volume() {
        let root = scratch("sub");
        assert_eq!(resolve_sub_path(&root, "a/b", true).unwrap(), root.join("a/b"));
        assert!(root.join("a/b").is_dir());
        assert!(resolve_sub_path(&root, "missing", false).is_err());
        symlink("/etc", root.join("out")).unwrap();
        symlink("/nowhere", root.join("dangling")).unwrap();
        for path in ["out", "out/passwd", "../x", "/etc", "dangling"] {
            assert!(resolve_sub_path(&root, path, true).is_err(), "{path}");
        }
        symlink("a", root.join("inner")).unwrap();
        assert_eq!(resolve_sub_path(&root, "inner/b", true).unwrap(), root.join("a/b"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn contents_are_read_only_and_managed_files_give_way() {
        let pod_dir = scratch("list");
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "a", "volumeMounts": [
                {"name": "conf", "mountPath": "/conf"}, {"name": "tmp", "mountPath": "/etc/hosts", "subPathExpr": "$(POD)"}]}],
            "volumes": [{"name": "conf", "configMap": {"name": "x"}}, {"name": "tmp", "emptyDir": {}}]}}))
        .unwrap();
        fs::create_dir_all(super::super::directory(&pod_dir, "tmp")).unwrap();
        let managed = Managed {
            hosts: "/h".into(),
            resolv_conf: "/r".into(),
            hostname: "/n".into(),
            termination: ("/dev/termination-log".into(), "/t".into()),
        };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env = [("POD".to_owned(), "web-1".to_owned())];
        let list = mounts(&pod_dir, &pod, container, &env, &managed).unwrap();
        let shown: Vec<_> =
            list.iter().map(|mount| (mount.container_path.to_str().unwrap(), mount.readonly)).collect();
        assert_eq!(
            shown,
            [
                ("/conf", true),
                ("/etc/hosts", false),
                ("/etc/resolv.conf", false),
                ("/etc/hostname", false),
                ("/dev/termination-log", false)
            ]
        );
        assert!(list[1].host_path.ends_with("volumes/tmp/web-1"));
        fs::remove_dir_all(pod_dir).unwrap();
    }
}
