//! What the kernel says of processes and of the machine.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::time::Instant;

/// Linux's unit of CPU times in /proc.
const MICROSECONDS_PER_TICK: u64 = 10_000;

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    pub anonymous: u64,
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            rss: sum.rss + it.rss,
            pss: sum.pss + it.pss,
            anonymous: sum.anonymous + it.anonymous,
        })
    }
}

/// Keeps the calling thread, and all it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot choose a core")
}

/// Time that all threads of a process have run, in microseconds: to the nanosecond as the scheduler counts it, with what the kernel did
/// for the network meanwhile, which the ticks of `/proc/PID/stat` would count elsewhere.
pub fn cpu_microseconds(pid: u32) -> Result<u64> {
    let mut nanoseconds = 0;
    for thread in
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has ended"))?
    {
        // A thread may have ended since.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(nanoseconds / 1000)
}

/// A process and those it has started, with theirs.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().filter_map(|field| field.parse::<u32>().ok()));
        next += 1;
    }
    found
}

/// Allows this process as many descriptors as the system lets it; connections that rest need many.
pub fn raise_descriptors() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Sleeps until a moment of a schedule.
#[expect(clippy::disallowed_methods, reason = "a schedule is time itself")]
pub fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Time that all cores together were busy, with time stolen by the hypervisor, in microseconds.
pub fn busy_microseconds() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> =
        line.split_ascii_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
    // idle and iowait are the fourth and fifth
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    Ok((fields.iter().sum::<u64>() - idle) * MICROSECONDS_PER_TICK)
}

/// Memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("process {pid} has ended"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    Ok(Memory { rss: field("Rss:"), pss: field("Pss:"), anonymous: field("Anonymous:") })
}

/// Every process: identifier and command line, arguments joined by blanks.
pub fn processes() -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        if let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) {
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
        }
    }
    Ok(found)
}

/// Cgroup paths of a process, one a line; empty when it has ended.
pub fn cgroups(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

/// Cores of the machine, whatever this process may use.
pub fn cores() -> usize {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbered = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    text.lines().filter(numbered).count().max(1)
}

/// A field of the first processor in /proc/cpuinfo.
pub fn processor(field: &str) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
}

/// The kernel's release.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
