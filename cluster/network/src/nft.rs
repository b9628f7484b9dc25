//! Running `nft` and checking that the programs this crate needs are there.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::NetworkError;

/// How much of nft's complaint an error repeats.
const STDERR_BYTES_MAX: usize = 600;

/// Checks that the programs this crate runs are installed.
///
/// # Errors
/// [`NetworkError::MissingTool`] with the package that holds the missing one.
pub fn check_tools() -> Result<(), NetworkError> {
    match Command::new("nft").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
        Err(error) => Err(NetworkError::io("cannot run `nft --version`")(error)),
        Ok(_) => Ok(()),
    }
}

/// Loads `ruleset` as one transaction into the calling thread's namespace. `what` names it in errors.
pub(crate) fn load(what: &'static str, ruleset: &str) -> Result<(), NetworkError> {
    let mut child = match Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(NetworkError::io("cannot run `nft`")(error)),
    };
    // nft reads everything before it prints, so this cannot deadlock; if it dies early, its status says why.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(ruleset.as_bytes()));
    let output = child.wait_with_output().map_err(NetworkError::io("cannot wait for `nft`"))?;
    if !output.status.success() {
        let mut stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if let Some((cut, _)) = stderr.char_indices().nth(STDERR_BYTES_MAX) {
            stderr.truncate(cut);
        }
        return Err(NetworkError::Nft { what, stderr });
    }
    written.map_err(NetworkError::io("cannot write to `nft`"))
}

fn missing() -> NetworkError {
    NetworkError::MissingTool { program: "nft", package: "nftables" }
}
