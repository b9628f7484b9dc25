//! The last steps of a process on its way to being the container's program: limits, user, capabilities, filter, execve. OCI runtime
//! specification, "Process".

use std::ffi::{CString, NulError};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, Gid, Uid, access, chdir, execve, setgroups, setresgid, setresuid};
use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, PosixRlimitType, Process};

use super::{Failure, Result, at};
use crate::{seccomp, sys};

/// Sets what only the host's `/proc`, while it is still in sight, lets us set.
pub(super) fn prepare(process: &Process) -> Result<()> {
    if let Some(adjust) = process.oom_score_adj() {
        at(fs::write("/proc/self/oom_score_adj", adjust.to_string()), "cannot set oom_score_adj")?;
    }
    Ok(())
}

/// Lets the container's user open its own standard streams again through `/dev/stdout` and the like.
pub(super) fn give_streams(process: &Process, streams: &[BorrowedFd<'_>]) -> Result<()> {
    let uid = Uid::from_raw(process.user().uid());
    for stream in streams {
        at(nix::unistd::fchown(*stream, Some(uid), None), "cannot hand over a standard stream")?;
    }
    Ok(())
}

/// Becomes the program; answers only if it cannot. Everything but the program itself was prepared.
/// `ready` is called when only execve is left.
pub(super) fn become_program(
    process: &Process,
    filter: Option<&LinuxSeccomp>,
    extra_env: &[(String, String)],
    ready: impl FnOnce() -> Result<()>,
) -> Failure {
    match try_become(process, filter, extra_env, ready) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_become(
    process: &Process,
    filter: Option<&LinuxSeccomp>,
    extra_env: &[(String, String)],
    ready: impl FnOnce() -> Result<()>,
) -> Result<std::convert::Infallible> {
    let args = process.args().clone().unwrap_or_default();
    let env = environment(process, extra_env);
    limits(process)?;
    at(sys::close_on_exec_from(3), "cannot close descriptors")?;
    at(sys::reset_signals(), "cannot reset signals")?;
    sys::new_session_keyring();
    umask(Mode::from_bits_truncate(0o022));
    let programs = match filter {
        Some(section) => at(seccomp::compile(section), "cannot build the system call filter")?,
        None => Vec::new(),
    };
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    // Without that bit only a privileged process may install a filter, so it must happen before privileges go.
    if !no_new_privileges {
        install(&programs)?;
    }
    at(chdir(process.cwd()), format_args!("chdir to cwd ({:?}) failed", process.cwd()))?;
    user_and_capabilities(process)?;
    if no_new_privileges {
        at(prctl::set_no_new_privs(), "cannot forbid new privileges")?;
    }
    // Changing the user clears it, so it comes late. Whoever dies first, helper or program, takes the other along.
    at(prctl::set_pdeathsig(Signal::SIGKILL), "cannot bind to the helper's life")?;
    let program = find(&args, &env)?;
    let program = at(CString::new(program.into_os_string().into_encoded_bytes()), "bad program name")?;
    let c_args = at(c_strings(&args), "bad argument")?;
    let c_env = at(c_strings(&env), "bad environment")?;
    ready()?;
    if no_new_privileges {
        install(&programs)?;
    }
    let Err(error) = execve(&program, &c_args, &c_env);
    Err(Failure(format!("exec {}: {}", args[0], exec_error(error))))
}

fn environment(process: &Process, extra: &[(String, String)]) -> Vec<String> {
    let mut env = process.env().clone().unwrap_or_default();
    for (name, value) in extra {
        let prefix = format!("{name}=");
        env.retain(|entry| !entry.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    }
    env
}

fn c_strings(texts: &[String]) -> std::result::Result<Vec<CString>, NulError> {
    texts.iter().map(|text| CString::new(text.as_bytes())).collect()
}

fn limits(process: &Process) -> Result<()> {
    for limit in process.rlimits().iter().flatten() {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
            PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
            PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
            PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
            PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
            other => return Err(Failure(format!("resource limit {other} is not supported"))),
        };
        // Root may lack CAP_SYS_RESOURCE: never above the own hard limit.
        let (_, own) = at(getrlimit(resource), "cannot read a resource limit")?;
        let hard = limit.hard().min(own);
        at(setrlimit(resource, limit.soft().min(hard), hard), format_args!("cannot set {}", limit.typ()))?;
    }
    Ok(())
}

fn install(programs: &[seccompiler::BpfProgram]) -> Result<()> {
    for program in programs {
        at(sys::seccomp_install(program), "cannot install the system call filter")?;
    }
    Ok(())
}

fn user_and_capabilities(process: &Process) -> Result<()> {
    let user = process.user();
    let held = at(caps::read(None, CapSet::Bounding), "cannot read the capability bounding set")?;
    let wanted = |pick: fn(&LinuxCapabilities) -> &Option<oci_spec::runtime::Capabilities>| -> CapsHashSet {
        let set = process.capabilities().as_ref().and_then(|set| pick(set).as_ref());
        let names =
            set.into_iter().flatten().map(|capability| format!("CAP_{}", bare(&capability.to_string())));
        names.filter_map(|name| name.parse().ok()).filter(|capability| held.contains(capability)).collect()
    };
    let bounding = wanted(LinuxCapabilities::bounding);
    for capability in held.difference(&bounding) {
        at(caps::drop(None, CapSet::Bounding, *capability), "cannot drop a capability")?;
    }
    at(prctl::set_keepcaps(true), "cannot keep capabilities")?;
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    at(setgroups(&groups), "cannot set groups")?;
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    at(setresgid(gid, gid, gid), "cannot set the group")?;
    at(setresuid(uid, uid, uid), "cannot set the user")?;
    at(prctl::set_keepcaps(false), "cannot stop keeping capabilities")?;
    at(caps::clear(None, CapSet::Ambient), "cannot clear ambient capabilities")?;
    for (set, pick) in [
        (CapSet::Effective, LinuxCapabilities::effective as fn(&_) -> &_),
        (CapSet::Permitted, LinuxCapabilities::permitted),
        (CapSet::Inheritable, LinuxCapabilities::inheritable),
    ] {
        at(caps::set(None, set, &wanted(pick)), "cannot set capabilities")?;
    }
    Ok(())
}

fn bare(name: &str) -> &str {
    name.strip_prefix("CAP_").unwrap_or(name)
}

/// Finds the program the way a shell does, as the container's user.
fn find(args: &[String], env: &[String]) -> Result<PathBuf> {
    let Some(name) = args.first().filter(|name| !name.is_empty()) else {
        return Err(Failure("no command specified".into()));
    };
    if name.contains('/') {
        let error = match access(name.as_str(), AccessFlags::X_OK) {
            Err(Errno::ENOENT) => format!("stat {name}: no such file or directory"),
            Err(error) => exec_error(error),
            Ok(()) if Path::new(name).is_dir() => "is a directory".to_owned(),
            Ok(()) => return Ok(name.into()),
        };
        return Err(Failure(format!("exec: \"{name}\": {error}")));
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match access(&candidate, AccessFlags::X_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Err(Errno::EACCES) => denied |= candidate.is_file(),
            _ => {}
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(Failure(format!("exec: \"{name}\": {why}")))
}

fn exec_error(error: Errno) -> String {
    error.desc().to_lowercase()
}

/// The descriptor standard streams have in every process.
pub(super) fn set_streams(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> Result<()> {
    at(nix::unistd::dup2_stdin(stdin), "cannot set standard input")?;
    at(nix::unistd::dup2_stdout(stdout), "cannot set standard output")?;
    at(nix::unistd::dup2_stderr(stderr), "cannot set standard error")
}
