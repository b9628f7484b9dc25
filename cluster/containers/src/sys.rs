//! System calls that have no safe wrapper elsewhere. The only module of this crate with `unsafe`; each function is one call or two.
#![expect(
    unsafe_code,
    reason = "raw system calls: mount API, pidfd, fork, seccomp, extended attributes, terminals"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use libc::{c_int, c_long, c_void};
use nix::sys::signal::{SigHandler, SigSet, Signal};
use tokio::io::unix::AsyncFd;

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `struct clone_args` of `clone3(2)`.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
const OPEN_TREE_CLONE: c_long = 1;
const OPEN_TREE_CLOEXEC: c_long = libc::O_CLOEXEC as c_long;
const AT_RECURSIVE: c_long = 0x8000;
const AT_EMPTY_PATH: c_long = libc::AT_EMPTY_PATH as c_long;
const MOVE_MOUNT_F_EMPTY_PATH: c_long = 0x4;
const CLOSE_RANGE_CLOEXEC: c_long = 4;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// `fork(2)` for a process with one thread; `None` in the child.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the helper never makes a second thread, so the child may go on with ordinary Rust code.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Like [`fork`], but the child begins its life in the version 2 cgroup `dir`: `clone3(2)` with `CLONE_INTO_CGROUP`.
pub(crate) fn fork_into(dir: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: dir.as_raw_fd() as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM this is fork: the helper has one thread, and the child goes on with a copy of everything.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) })?;
    Ok((pid > 0).then_some(pid as i32))
}

/// Takes over a descriptor this process was born with.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: called once, at the start of a helper, for descriptor 0, which the parent always opens.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes over descriptors that arrived in a control message.
pub(crate) fn received(fds: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: the kernel just installed these for us and nothing else knows them.
    fds.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect()
}

/// Registers an owned, pollable descriptor with the reactor.
pub(crate) fn register(fd: OwnedFd) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    // SAFETY: `OwnedFd` stays the same open descriptor for as long as `AsyncFd` owns it.
    let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
    Ok(Arc::new(fd))
}

/// `pidfd_open(2)`.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers; the result is a new descriptor of ours.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::syscall(libc::SYS_pidfd_open, pid, 0))? as RawFd)) }
}

/// `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<c_void>();
    // SAFETY: a null siginfo asks the kernel to fill it as kill(2) does.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// `open_tree(2)` with clone: a detached recursive copy of the mounts at `path`.
pub(crate) fn open_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
    // SAFETY: the path outlives the call; the result is a new descriptor of ours.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// `move_mount(2)`: attaches a detached tree at `target`.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let (empty, target) = (c"", c_path(target)?);
    // SAFETY: both paths outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// `mount_setattr(2)` on a whole detached tree: sets attributes and, if given, the propagation.
pub(crate) fn mount_setattr(tree: BorrowedFd<'_>, attr_set: u64, propagation: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = AT_EMPTY_PATH | AT_RECURSIVE;
    // SAFETY: the structure has the kernel's layout and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Lets the kernel take back the pages of this program's code and constants that were used so far; the next use reads them again.
/// A helper that from now on only waits should not count them.
pub(crate) fn forget_code(map: &str) {
    for range in code_ranges(map) {
        // SAFETY: these are private mappings of a file that nobody can write to through them and that were never written: code, and what lies
        // before it in the file. What is dropped is read back from the file, unchanged.
        unsafe { libc::madvise(range.start as *mut c_void, range.end - range.start, libc::MADV_DONTNEED) };
    }
}

/// From the text of `/proc/self/maps`: the first file's mappings up to its code. Relocated constants lie behind the code.
fn code_ranges(map: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(mode), Some(inode)) = (fields.next(), fields.next(), fields.nth(2)) else {
            break;
        };
        if inode == "0" {
            continue;
        }
        let Some((start, end)) = range.split_once('-') else { break };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else {
            break;
        };
        match mode {
            "r--p" => ranges.push(start..end),
            "r-xp" => {
                ranges.push(start..end);
                return ranges;
            }
            _ => break,
        }
    }
    // Not laid out as expected: nothing is safe to drop.
    Vec::new()
}

/// `fsetxattr(2)`.
pub(crate) fn set_xattr(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: name and value outlive the call and the length is the value's.
    let result =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(c_long::from(result)).map(drop)
}

/// `seccomp(2)`: adds a filter to this thread. Unlike `prctl` it leaves `no_new_privs` alone, so it needs CAP_SYS_ADMIN or that bit.
pub(crate) fn seccomp_install(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `sock_filter` has the kernel's layout, the program outlives the call and its length is passed; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) })
        .map(drop)
}

/// Marks every descriptor from `first` on to be closed by execve.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: three integers; no descriptor is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_all_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller is about to sleep forever and uses none of the descriptors it still owns.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Lets the death of a child interrupt `pause(2)`.
pub(crate) fn interrupt_on_child() {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the handler does nothing at all.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::Handler(nothing)) };
}

/// Makes `terminal` the controlling terminal of this session.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an integer argument.
    check(c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// Sets the size of a terminal.
pub(crate) fn set_window_size(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure is the one this request reads.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(c_long::from(result)).map(drop)
}

/// Unlocks the slave of a terminal pair and answers its number.
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> io::Result<u32> {
    let unlock: c_int = 0;
    let mut number: c_int = 0;
    // SAFETY: both requests take a pointer to an int, read by the first and written by the second.
    unsafe {
        check(c_long::from(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock)))?;
        check(c_long::from(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number)))?;
    }
    u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Gives back what a fresh program expects: default signal handlers, no signal blocked. (Rust ignores SIGPIPE.)
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Starts a new session keyring, so that the host's is not shared. Absence of keyrings is fine.
pub(crate) fn new_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
    let none = std::ptr::null::<c_void>();
    // SAFETY: a null name asks for an anonymous keyring. The result only says whether there are keyrings at all.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::code_ranges;

    #[test]
    fn only_what_lies_before_the_code_and_the_code_is_dropped() {
        let map = "100-200 rw-p 00000000 00:00 0 [heap]\n1000-2000 r--p 00000000 fe:01 7 /x\n2000-4000 r-xp 00001000 fe:01 7 /x\n\
                   4000-5000 r--p 00003000 fe:01 7 /x\n5000-6000 rw-p 00004000 fe:01 7 /x\n";
        assert_eq!(code_ranges(map), [0x1000..0x2000, 0x2000..0x4000]);
        assert!(code_ranges("1000-2000 rw-p 0 0 7\n2000-3000 r-xp 0 0 7\n").is_empty());
        assert!(code_ranges("").is_empty() && code_ranges("x").is_empty());
    }

    #[test]
    fn a_program_goes_on_after_its_code_was_forgotten() {
        let before = "constant".len();
        super::forget_code(&std::fs::read_to_string("/proc/self/maps").unwrap());
        assert_eq!("constant".len(), before);
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
    }
}
