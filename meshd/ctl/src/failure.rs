//! How a command fails: what, why, how to fix it, and the exit status that scripts read.

use base_types::ErrorChain;
use std::fmt;

/// Exit statuses, as istioctl and `sysexits.h` use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed.
    Failed = 1,
    /// Words of the command line are off.
    Usage = 64,
    /// A file holds something invalid; nothing was changed.
    BadInput = 65,
    /// The cluster cannot be reached.
    Unreachable = 69,
    /// It did not happen in time.
    TimedOut = 75,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub exit: Exit,
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// What commands return.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with a text.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), fix: None }
    }

    /// Says how to fix it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "\n  fix: {fix}"))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let exit = if matches!(status.code, 400 | 422) { Exit::BadInput } else { Exit::Failed };
                Self::new(exit, status.message.clone())
            }
            other => {
                Self::new(Exit::Unreachable, format!("the cluster does not answer: {}", ErrorChain(&other)))
                    .fix("meshctl status shows whether it runs; meshctl up starts it")
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Exit::Failed, format!("not the JSON that was expected: {error}"))
    }
}
