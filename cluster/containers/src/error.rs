//! The error of every runtime operation, with the reason Kubernetes shows for it.

use std::io;

use crate::image::ImageError;

/// Why an operation on containers did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image is not on this node, or its files are damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No container has this identity.
    #[error("container \"{0}\" is not known")]
    NoContainer(String),
    /// No sandbox has this UID.
    #[error("sandbox \"{0}\" is not known")]
    NoSandbox(String),
    /// The request contradicts itself or the image.
    #[error("{0}")]
    Invalid(String),
    /// The operation needs another state, for instance exec in a container that does not run.
    #[error("container \"{id}\" is {state}, not {wanted}")]
    WrongState {
        /// Container.
        id: String,
        /// What it is.
        state: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// The program could not be started; the message says why in the words people search for.
    #[error("{0}")]
    Start(String),
    /// A command in a container did not end in time.
    #[error("command timed out after {0:?}")]
    Timeout(std::time::Duration),
    /// The operating system refused something.
    #[error("{context}")]
    Io {
        /// What was being done, to what.
        context: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file this runtime wrote cannot be read back.
    #[error("{path}: not what this runtime writes")]
    Record {
        /// The file.
        path: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

// === impl Error ===

impl Error {
    /// The reason kubelet puts into a waiting or terminated state.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Image(ImageError::Missing { .. }) => "ErrImagePull",
            Self::Image(ImageError::InvalidName { .. }) => "InvalidImageName",
            Self::Image(_) => "ImageInspectError",
            Self::Invalid(_) => "CreateContainerConfigError",
            Self::Start(_) => "RunContainerError",
            Self::NoContainer(_) | Self::NoSandbox(_) | Self::WrongState { .. } => "CreateContainerError",
            Self::Timeout(_) | Self::Io { .. } | Self::Record { .. } => "CreateContainerError",
        }
    }

    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}
