//! Limits and usage as the kernel's files spell them. Pure.

use std::fmt;

use crate::spec::Resources;
use crate::status::Stats;

/// A line of `devices.allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    /// `a` (everything), `c` or `b`.
    pub(crate) kind: char,
    /// `None` is any.
    pub(crate) major: Option<u64>,
    /// `None` is any.
    pub(crate) minor: Option<u64>,
    /// Read, write, make.
    pub(crate) access: (bool, bool, bool),
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u64>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let (read, write, make) = self.access;
        write!(f, "{} {}:{} ", self.kind, number(self.major), number(self.minor))?;
        [(read, "r"), (write, "w"), (make, "m")]
            .iter()
            .filter(|(on, _)| *on)
            .try_for_each(|(_, l)| f.write_str(l))
    }
}

/// Controller, file and value for each limit.
pub(super) fn limits(version: u8, limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let period = limits.cpu_period_us.unwrap_or(100_000).clamp(1_000, 1_000_000);
    // The kernel refuses less than a millisecond.
    let quota = limits.cpu_quota_us.map(|quota| if quota < 0 { quota } else { quota.max(1_000) });
    let mut out = Vec::new();
    let positive = |n: &i64| *n > 0;
    if version == 1 {
        out.extend(limits.cpu_shares.map(|s| ("cpu", "cpu.shares", s.clamp(2, 262_144).to_string())));
        if let Some(quota) = quota {
            out.push(("cpu", "cpu.cfs_period_us", period.to_string()));
            out.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        }
        out.extend(
            limits.memory_limit.filter(positive).map(|m| ("memory", "memory.limit_in_bytes", m.to_string())),
        );
    } else {
        out.extend(limits.cpu_shares.map(|s| ("cpu", "cpu.weight", weight(s).to_string())));
        if let Some(quota) = quota {
            let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
            out.push(("cpu", "cpu.max", format!("{quota} {period}")));
        }
        out.extend(limits.memory_limit.filter(positive).map(|m| ("memory", "memory.max", m.to_string())));
    }
    out.extend(limits.pids_limit.filter(positive).map(|p| ("pids", "pids.max", p.to_string())));
    out
}

/// Maps shares 2..=262144 to weights 1..=10000, as the OCI runtimes do.
fn weight(shares: u64) -> u64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9_999) / 262_142
}

pub(super) fn stats_v1(cpu: &str, usage: &str, memory: &str, pids: &str) -> Stats {
    stats(number(cpu), usage, line(memory, "total_inactive_file"), line(memory, "total_rss"), pids)
}

pub(super) fn stats_v2(cpu: &str, usage: &str, memory: &str, pids: &str) -> Stats {
    stats(
        line(cpu, "usage_usec").saturating_mul(1_000),
        usage,
        line(memory, "inactive_file"),
        line(memory, "anon"),
        pids,
    )
}

fn stats(cpu_usage_ns: u64, usage: &str, inactive: u64, rss: u64, pids: &str) -> Stats {
    let usage = number(usage);
    Stats {
        cpu_usage_ns,
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(inactive),
        memory_rss_bytes: rss,
        pids: number(pids),
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number after `key` at the start of a line; 0 if there is none.
fn line(text: &str, key: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ').map(number);
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_spelled_for_both_versions() {
        let resources = Resources {
            cpu_shares: Some(102),
            cpu_quota_us: Some(500),
            memory_limit: Some(64 << 20),
            pids_limit: Some(5),
            ..Resources::default()
        };
        let spell = |version| {
            limits(version, &resources).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect::<Vec<_>>()
        };
        assert_eq!(
            spell(1),
            [
                "cpu.shares=102",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=1000",
                "memory.limit_in_bytes=67108864",
                "pids.max=5"
            ]
        );
        assert_eq!(spell(2), ["cpu.weight=4", "cpu.max=1000 100000", "memory.max=67108864", "pids.max=5"]);
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
        assert!(limits(1, &Resources::default()).is_empty());
    }

    #[test]
    fn usage_is_read_from_both_versions() {
        let memory = "cache 5\nrss 1\ntotal_rss 700\ntotal_inactive_file 100\n";
        let v1 = stats_v1("12\n", "1000\n", memory, "3\n");
        assert_eq!(
            (v1.cpu_usage_ns, v1.memory_working_set_bytes, v1.memory_rss_bytes, v1.pids),
            (12, 900, 700, 3)
        );
        let v2 = stats_v2("usage_usec 5\nuser_usec 4\n", "1000\n", "anon 600\ninactive_file 2000\n", "1");
        assert_eq!((v2.cpu_usage_ns, v2.memory_working_set_bytes, v2.memory_rss_bytes), (5_000, 0, 600));
    }

    #[test]
    fn device_rules_read_as_the_kernel_wants() {
        let rule = DeviceRule { kind: 'c', major: Some(1), minor: None, access: (true, true, false) };
        assert_eq!(rule.to_string(), "c 1:* rw");
    }
}
