//! Makes the namespaces the containers of a pod share, and binds them to files so that they live without a process. Only a shared pid namespace
//! needs one: its first process reaps orphans.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{pause, sethostname, setsid};

use super::fork::{Forked, fork};
use super::{Failure, Result, at, report_failure};
use crate::control::{self, Report};
use crate::record::{self, CgroupDirs, SandboxRecord};
use crate::spec::SandboxSpec;
use crate::sys;

/// Size of a pod's `/dev/shm`. What containerd gives.
const SHM: &str = "mode=1777,size=67108864";

/// Makes what `sandbox.json.tmp`'s record in `dir` asks for; answers the process that holds a shared pid namespace, or 0.
pub(super) fn make(dir: &Path, control: OwnedFd) -> Result<()> {
    let _ = setsid();
    match set_up(dir) {
        Ok(pid) => {
            let _ = control::send(control.as_fd(), &Report::Started { pid }, &[]);
        }
        Err(failure) => report_failure(&control, &failure),
    }
    Ok(())
}

fn set_up(dir: &Path) -> Result<i32> {
    let record: Option<SandboxRecord> =
        at(record::read(&dir.join(record::SANDBOX_WANTED)), "cannot read the sandbox")?;
    let record = record.ok_or_else(|| Failure("there is no sandbox to make".into()))?;
    let spec = &record.spec;
    if !spec.net_ns.as_os_str().is_empty() {
        let what = || format!("cannot join the network namespace {}", spec.net_ns.display());
        let file = at(File::open(&spec.net_ns), what())?;
        at(setns(&file, CloneFlags::CLONE_NEWNET), what())?;
    }
    let mut own = CloneFlags::CLONE_NEWUTS;
    if !spec.host_ipc {
        own |= CloneFlags::CLONE_NEWIPC;
    }
    at(unshare(own), "cannot make namespaces")?;
    if !spec.hostname.is_empty() {
        at(sethostname(&spec.hostname), format_args!("cannot set the host name \"{}\"", spec.hostname))?;
    }
    sysctls(spec)?;
    keep("/proc/self/ns/uts", &dir.join("uts"))?;
    if !spec.host_ipc {
        keep("/proc/self/ns/ipc", &dir.join("ipc"))?;
        let shm = dir.join("shm");
        at(fs::create_dir_all(&shm), "cannot make the shared memory directory")?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        at(mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(SHM)), "cannot mount shared memory")?;
    }
    if spec.share_pid { share_pid(dir, &record.pause_cgroup) } else { Ok(0) }
}

fn sysctls(spec: &SandboxSpec) -> Result<()> {
    for (name, value) in &spec.sysctls {
        let safe = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..");
        let namespaced = ["net", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue"];
        let own = namespaced.iter().any(|prefix| name.starts_with(prefix))
            && (!name.starts_with("net") || !spec.net_ns.as_os_str().is_empty())
            && (name.starts_with("net") || !spec.host_ipc);
        if !safe || !own {
            return Err(Failure(format!("sysctl \"{name}\" does not belong to a pod")));
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        at(fs::write(path, value), format_args!("cannot set sysctl \"{name}\" to \"{value}\""))?;
    }
    Ok(())
}

/// Binds a namespace to a file.
fn keep(namespace: &str, file: &Path) -> Result<()> {
    let what = || format!("cannot keep a namespace as {}", file.display());
    at(touch(file), what())?;
    at(mount(Some(namespace), file, None::<&str>, MsFlags::MS_BIND, None::<&str>), what())
}

fn touch(file: &Path) -> io::Result<()> {
    match File::options().create_new(true).write(true).open(file) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Starts the first process of a pid namespace. It is this program, forked: it sleeps and reaps.
fn share_pid(dir: &Path, cgroup: &CgroupDirs) -> Result<i32> {
    at(unshare(CloneFlags::CLONE_NEWPID), "cannot make a pid namespace")?;
    let pid = match fork(cgroup)? {
        Forked::Parent(pid) => pid,
        Forked::Child(entrance) => match entrance.enter() {
            Ok(()) => reap_forever(),
            // Its parent finds no namespace to keep.
            Err(_) => std::process::exit(1),
        },
    };
    keep(&format!("/proc/{pid}/ns/pid"), &dir.join("pid"))?;
    Ok(pid)
}

fn reap_forever() -> ! {
    let _ = setsid();
    // The control socket must not look open.
    let _ = sys::close_all_from(3);
    sys::interrupt_on_child();
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => pause(),
            _ => {}
        }
    }
}
