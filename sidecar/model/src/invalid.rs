//! Why a resource was refused.

use std::borrow::Cow;

/// A resource, or a part of one, that cannot be honoured: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path of the field inside the resource, for example `virtual_hosts[0].routes[2].match.path`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

// === impl Invalid ===

impl Invalid {
    /// `field` is refused for `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// `field` must be set.
    pub fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "must be set")
    }

    /// `field` asks for something this sidecar does not do.
    pub fn unsupported(field: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(field, format!("{} is not supported", what.into()))
    }

    /// The same error, seen from the message that holds `parent`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field =
            if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }

    /// The same error, seen from the message that holds the list `parent`.
    #[must_use]
    pub fn within_item(self, parent: &str, index: usize) -> Self {
        self.within(&format!("{parent}[{index}]"))
    }
}
