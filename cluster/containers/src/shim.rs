//! The helper process: one small single-threaded parent for each container, and short-lived ones for exec and sandboxes.
//!
//! It shares the program file with its caller but nothing else: no runtime, no thread, no log. Its first argument says what it is; descriptor 0 is
//! a control socket ([`crate::control`]); the rest it reads from the container's directory. What it can say, it says over that socket or in files.

mod attach;
mod console;
mod exec;
mod fork;
mod log;
mod program;
mod pump;
mod rootfs;
mod run;
mod sandbox;

use std::fmt::Display;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use crate::control::{self, Report};
use crate::sys;

/// Why a helper could not do its work, in the words people search for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

type Result<T> = std::result::Result<T, Failure>;

/// Runs a helper to its end. Call it first thing in `main`, before any thread exists, with the arguments after `shim_args`.
pub fn shim_main(args: Vec<String>) -> ! {
    // It is started through a descriptor, whose number would be its name.
    let _ = nix::sys::prctl::set_name(c"cluster-shim");
    let _ = nix::unistd::chdir("/");
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", dir] => control_socket().and_then(|control| run::run(Path::new(dir), control)),
        ["exec", dir] => control_socket().and_then(|control| exec::exec(Path::new(dir), &control)),
        ["sandbox", dir] => control_socket().and_then(|control| sandbox::make(Path::new(dir), control)),
        _ => Err(Failure("usage: shim run|exec|sandbox DIRECTORY (started by the container runtime)".into())),
    };
    let code = match done {
        Ok(()) => 0,
        Err(failure) => {
            // The parent made standard error a file of the container's directory.
            eprintln!("{failure}");
            1
        }
    };
    std::process::exit(code)
}

/// Moves the control socket away from descriptor 0, which becomes `/dev/null`.
fn control_socket() -> Result<OwnedFd> {
    let born = sys::adopt(0);
    let moved = at(fcntl(&born, FcntlArg::F_DUPFD_CLOEXEC(3)), "cannot keep the control socket")?;
    let moved = sys::received(&[moved]).remove(0);
    let null =
        at(open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()), "cannot open /dev/null")?;
    at(nix::unistd::dup2_stdin(&null), "cannot replace standard input")?;
    // Descriptor 0 is `/dev/null` now and stays open for the life of this process.
    let _ = born.into_raw_fd();
    Ok(moved)
}

/// Tells the runtime why nothing was started. A runtime that is gone cannot be told.
fn report_failure(control: &OwnedFd, failure: &Failure) {
    let _ = control::send(control.as_fd(), &Report::Failed { message: failure.0.clone() }, &[]);
}

/// Adds what was being done to an error.
fn at<T, E: Display>(result: std::result::Result<T, E>, what: impl Display) -> Result<T> {
    result.map_err(|error| Failure(format!("{what}: {error}")))
}
