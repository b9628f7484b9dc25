//! How much of its memory the process has used up: the cgroup's working set against its limit, or its own heap against a limit given.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sidecar_proxy::{Level, Proxy};

use crate::resident;

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How often memory is measured while there is plenty, and when it is getting short.
const CALM: Duration = Duration::from_millis(250);
const TENSE: Duration = Duration::from_millis(10);
/// Thousandths of the limit from which on memory is getting short.
const TENSE_FROM: u16 = 500;
/// How many measurements of a tense time go by between two attempts to give memory back.
const TRIM_EVERY: u32 = 50;
/// It reads three small files.
const STACK_BYTES: usize = 128 * 1024;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Gauge {
    limit: u64,
    usage: Usage,
}

#[derive(Debug)]
enum Usage {
    /// The process's own memory, without its file's pages.
    Own,
    /// A cgroup's: usage and statistics, with the name that inactive page cache has there.
    Cgroup { usage: PathBuf, statistics: PathBuf, inactive: &'static str },
}

impl Gauge {
    /// Measures against `limit`, or else against the limit of the process's own cgroup; none when there is no limit.
    pub(crate) fn find(limit: Option<u64>) -> Option<Self> {
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        match limit {
            Some(limit) => Some(Self { limit, usage: Usage::Own }),
            None => Self::of_cgroup(&memberships, Path::new(CGROUPS)),
        }
    }

    fn of_cgroup(memberships: &str, root: &Path) -> Option<Self> {
        let mut lines = memberships.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?.trim_start_matches('/')))
        });
        // A container may see its own cgroup as the root.
        lines.find_map(|(controllers, path)| {
            let v1 = controllers.split(',').any(|name| name == "memory");
            let base = match (v1, controllers) {
                (true, _) => root.join("memory"),
                (false, "") => root.to_owned(),
                _ => return None,
            };
            [base.join(path), base].into_iter().find_map(|directory| Self::in_directory(&directory, v1))
        })
    }

    fn in_directory(directory: &Path, v1: bool) -> Option<Self> {
        let (limit, usage, inactive) = match v1 {
            true => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            false => ("memory.max", "memory.current", "inactive_file"),
        };
        // `max` is no number, and version 1 writes a number that no machine has.
        let limit = number(&directory.join(limit)).filter(|limit| *limit < 1 << 50)?;
        let (usage, statistics) = (directory.join(usage), directory.join("memory.stat"));
        usage.exists().then_some(Self { limit, usage: Usage::Cgroup { usage, statistics, inactive } })
    }

    /// Thousandths of the limit that are in use.
    fn pressure(&self) -> Option<u16> {
        let used = match &self.usage {
            Usage::Own => {
                let status = fs::read_to_string("/proc/self/status").ok()?;
                1024 * field(&status, "RssAnon:")?
            }
            Usage::Cgroup { usage, statistics, inactive } => {
                let cache = fs::read_to_string(statistics).ok().and_then(|text| field(&text, inactive));
                number(usage)?.saturating_sub(cache.unwrap_or_default())
            }
        };
        u16::try_from(used.saturating_mul(1000) / self.limit.max(1)).ok().or(Some(u16::MAX))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '\t'])))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Measures for ever, and tells the data path. On a thread of its own: when memory runs out is when the others are busy.
pub(crate) fn watch(gauge: Gauge, proxy: &Arc<Proxy>) -> std::io::Result<()> {
    let proxy = Arc::downgrade(proxy);
    std::thread::Builder::new()
        .name("memory".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || run(&gauge, &proxy))?;
    Ok(())
}

fn run(gauge: &Gauge, proxy: &Weak<Proxy>) {
    tracing::info!(limit = gauge.limit, "Memory is watched");
    let mut tense = 0;
    loop {
        let Some(pressure) = gauge.pressure() else {
            tracing::warn!("Memory can no longer be measured");
            return;
        };
        let Some(level) = proxy.upgrade().map(|proxy| proxy.pressure(pressure)) else { return };
        // What connections have given back may still be held by the allocator, which knows nothing of the limit.
        if level > Level::Calm && tense % TRIM_EVERY == 0 {
            resident::release_heap();
        }
        tense = if level > Level::Calm { tense + 1 } else { 0 };
        std::thread::park_timeout(if pressure < TENSE_FROM { CALM } else { TENSE });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let root = tempfile::tempdir().unwrap();
        let old = [
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "900\n"),
            ("memory.stat", "inactive_file 7\ntotal_inactive_file 100\n"),
        ];
        write(&root.path().join("memory/pods/one"), &old);
        let lines = "5:cpu:/pods/one\n4:memory:/pods/one\n0::/\n";
        let gauge = Gauge::of_cgroup(lines, root.path()).unwrap();
        assert_eq!((gauge.limit, gauge.pressure()), (1000, Some(800)));
        // Inside a container the path of the machine is not there: the view's root is the own one.
        write(&root.path().join("memory"), &old);
        assert!(Gauge::of_cgroup("4:memory:/elsewhere\n", root.path()).is_some());

        let root = tempfile::tempdir().unwrap();
        let new =
            [("memory.max", "max\n"), ("memory.current", "500\n"), ("memory.stat", "inactive_file 0\n")];
        write(root.path(), &new);
        assert!(Gauge::of_cgroup("0::/\n", root.path()).is_none(), "no limit");
        write(root.path(), &[("memory.max", "1000\n")]);
        assert_eq!(Gauge::of_cgroup("0::/\n", root.path()).unwrap().pressure(), Some(500));
        write(&root.path().join("memory"), &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert!(Gauge::of_cgroup("4:memory:/\n", root.path()).is_none(), "the number that means none");
    }

    #[test]
    fn own_memory_is_measured() {
        let gauge = Gauge::find(Some(1 << 30)).unwrap();
        let (before, block) = (gauge.pressure().unwrap(), vec![1u8; 200 << 20]);
        assert!(gauge.pressure().unwrap() >= before + 150, "{} bytes more", block.len());
    }
}
