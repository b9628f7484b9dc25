//! What can go wrong while namespaces, links and rules are made.

use std::io;
use std::path::PathBuf;

/// Why an operation on the network did not happen.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A system call on a namespace, link, address or file was refused.
    #[error("{action}")]
    Io {
        /// What was tried, in words.
        action: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A program this crate needs is not installed.
    #[error("`{program}` is not installed; install it with: apt-get install {package}")]
    MissingTool {
        /// The program's name.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// `nft` refused a ruleset.
    #[error("nft refused {what}: {stderr}")]
    Nft {
        /// Which ruleset.
        what: &'static str,
        /// The first lines nft printed.
        stderr: String,
    },
    /// A node has handed out every pod address.
    #[error("no free pod address left in {cidr}")]
    Exhausted {
        /// The node's pod range.
        cidr: ipnet::Ipv4Net,
    },
    /// A file that remembers a pod's address cannot be understood.
    #[error("{} does not hold a pod address record", path.display())]
    Record {
        /// The file.
        path: PathBuf,
    },
    /// The configuration asks for something that cannot be built.
    #[error("{0}")]
    Config(String),
}

impl NetworkError {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
