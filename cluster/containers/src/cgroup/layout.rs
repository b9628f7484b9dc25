//! Where the control group hierarchies are mounted. Pure: reads the text of `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

/// Controllers of version 1 that are used if they are there.
const USED: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];

/// Mount points by controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each used controller with its mount point (several may share one), and the version 2 mount beside them.
    V1 { controllers: Vec<(String, PathBuf)>, unified: Option<PathBuf> },
    /// Everything below one mount point.
    V2 { root: PathBuf },
}

// === impl Layout ===

impl Layout {
    /// `v2_controllers` answers the text of `cgroup.controllers` below a version 2 mount.
    pub(super) fn parse(mountinfo: &str, v2_controllers: impl Fn(&Path) -> String) -> Result<Self, String> {
        let (mut controllers, mut unified) = (Vec::new(), None);
        for line in mountinfo.lines() {
            let Some((mount, rest)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let mut rest = rest.split(' ');
            match (rest.next(), rest.nth(1)) {
                (Some("cgroup2"), _) => unified = unified.or_else(|| Some(PathBuf::from(point))),
                (Some("cgroup"), Some(options)) => {
                    let used = USED.iter().filter(|name| options.split(',').any(|option| option == **name));
                    for name in used {
                        if !controllers.iter().any(|(known, _)| known == name) {
                            controllers.push(((*name).to_owned(), PathBuf::from(point)));
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(root) = &unified {
            let there = v2_controllers(root);
            if ["cpu", "memory", "pids"].iter().all(|c| there.split_whitespace().any(|t| t == *c)) {
                return Ok(Self::V2 { root: root.clone() });
            }
        }
        let missing = |name: &&&str| !controllers.iter().any(|(known, _)| known == **name);
        match ["cpu", "memory", "pids"].iter().find(missing) {
            None => Ok(Self::V1 { controllers, unified }),
            Some(name) => Err(format!(
                "no cgroup controller \"{name}\" is mounted: containers cannot be limited; mount it with \
                 `mount -t cgroup2 none /sys/fs/cgroup`, or `mount -t cgroup -o {name} none /sys/fs/cgroup/{name}`"
            )),
        }
    }

    /// 1 or 2.
    pub(super) fn version(&self) -> u8 {
        match self {
            Self::V1 { .. } => 1,
            Self::V2 { .. } => 2,
        }
    }

    /// Directory of a group for one controller.
    pub(super) fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::V1 { controllers, .. } => {
                controllers.iter().find(|(name, _)| name == controller).map(|(_, mount)| mount.join(path))
            }
            Self::V2 { .. } if controller == "devices" => None,
            Self::V2 { root } => Some(root.join(path)),
        }
    }

    /// Directory of a group in the version 2 hierarchy.
    pub(super) fn unified(&self, path: &str) -> Option<PathBuf> {
        match self {
            Self::V1 { unified, .. } => unified.as_ref().map(|mount| mount.join(path)),
            Self::V2 { root } => Some(root.join(path)),
        }
    }

    /// All directories of a group, each once.
    pub(super) fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = match self {
            Self::V1 { controllers, .. } => controllers.iter().map(|(_, mount)| mount.join(path)).collect(),
            Self::V2 { .. } => Vec::new(),
        };
        dirs.extend(self.unified(path));
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// Name below `/sys/fs/cgroup` and directory of each controller.
    pub(super) fn views(&self, path: &str) -> Vec<(String, PathBuf)> {
        match self {
            Self::V1 { controllers, .. } => {
                controllers.iter().map(|(name, mount)| (name.clone(), mount.join(path))).collect()
            }
            Self::V2 { root } => vec![(String::new(), root.join(path))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
36 31 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_uses_version_one_and_joins_both() {
        let layout = Layout::parse(HYBRID, |_| "hugetlb\n".into()).unwrap();
        assert_eq!(layout.version(), 1);
        assert_eq!(layout.dir("cpuacct", "a/b"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert_eq!(layout.dir("devices", "a"), None);
        let dirs = layout.dirs("a");
        assert_eq!(dirs.len(), 4, "{dirs:?}");
        assert!(dirs.contains(&"/sys/fs/cgroup/unified/a".into()));
    }

    #[test]
    fn version_two_needs_its_controllers() {
        let mounts = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse(mounts, |_| "cpuset cpu io memory pids\n".into()).unwrap();
        assert_eq!(layout, Layout::V2 { root: "/sys/fs/cgroup".into() });
        assert_eq!(layout.dirs("a"), [PathBuf::from("/sys/fs/cgroup/a")]);
        let error = Layout::parse(mounts, |_| "cpu pids".into()).unwrap_err();
        assert!(error.contains("no cgroup controller"), "{error}");
    }

    #[test]
    fn a_missing_controller_is_named() {
        let without = HYBRID.replace("rw,memory", "rw,blkio");
        assert!(Layout::parse(&without, |_| String::new()).unwrap_err().contains("\"memory\""));
        assert!(Layout::parse("", |_| String::new()).is_err());
    }
}
