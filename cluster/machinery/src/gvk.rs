//! Names of API groups, versions, kinds and resources.

use std::{borrow::Cow, fmt, str::FromStr};

/// An API group and version; the core group is the empty string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// The group, `apps`.
    pub group: Cow<'static, str>,
    /// The version, `v1`.
    pub version: Cow<'static, str>,
}

/// A kind in a version of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// The group, `apps`.
    pub group: Cow<'static, str>,
    /// The version, `v1`.
    pub version: Cow<'static, str>,
    /// The kind, `Deployment`.
    pub kind: Cow<'static, str>,
}

/// A resource in a version of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// The group, `apps`.
    pub group: Cow<'static, str>,
    /// The version, `v1`.
    pub version: Cow<'static, str>,
    /// The resource, `deployments`.
    pub resource: Cow<'static, str>,
}

/// A kind of any version; displayed as `Deployment.apps`, as error messages have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// The group, `apps`.
    pub group: Cow<'static, str>,
    /// The kind, `Deployment`.
    pub kind: Cow<'static, str>,
}

/// A resource of any version; displayed as `deployments.apps`, as error messages have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The group, `apps`.
    pub group: Cow<'static, str>,
    /// The resource, `deployments`.
    pub resource: Cow<'static, str>,
}

/// A string is not `version` or `group/version`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unexpected GroupVersion string: {0}")]
pub struct InvalidGroupVersion(pub String);

// === impl GroupVersion ===

impl GroupVersion {
    /// A group and a version.
    pub fn new(group: impl Into<Cow<'static, str>>, version: impl Into<Cow<'static, str>>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// The kind of that name in this version.
    pub fn kind(&self, kind: impl Into<Cow<'static, str>>) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: kind.into() }
    }

    /// The resource of that name in this version.
    pub fn resource(&self, resource: impl Into<Cow<'static, str>>) -> GroupVersionResource {
        GroupVersionResource {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

impl FromStr for GroupVersion {
    type Err = InvalidGroupVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        if version.is_empty() || version.contains('/') || (group.is_empty() && text.contains('/')) {
            return Err(InvalidGroupVersion(text.to_owned()));
        }
        Ok(Self::new(group.to_owned(), version.to_owned()))
    }
}

// === impl GroupVersionKind ===

impl GroupVersionKind {
    /// A kind by its three names.
    pub fn new(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        kind: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The value of an object's `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> String {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }.to_string()
    }

    /// Without the version.
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

// === impl GroupVersionResource ===

impl GroupVersionResource {
    /// A resource by its three names.
    pub fn new(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        resource: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// Without the version.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }
}

// === impl GroupKind ===

impl GroupKind {
    /// A kind of a group.
    pub fn new(group: impl Into<Cow<'static, str>>, kind: impl Into<Cow<'static, str>>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.kind)
        } else {
            write!(f, "{}.{}", self.kind, self.group)
        }
    }
}

// === impl GroupResource ===

impl GroupResource {
    /// A resource of a group.
    pub fn new(group: impl Into<Cow<'static, str>>, resource: impl Into<Cow<'static, str>>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_versions_read_back() {
        for text in ["v1", "apps/v1", "networking.istio.io/v1beta1"] {
            assert_eq!(text.parse::<GroupVersion>().unwrap().to_string(), text);
        }
        for text in ["", "/v1", "a/b/c", "apps/"] {
            assert!(text.parse::<GroupVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_in_messages() {
        assert_eq!(GroupResource::new("", "pods").to_string(), "pods");
        assert_eq!(GroupResource::new("apps", "deployments").to_string(), "deployments.apps");
        assert_eq!(GroupKind::new("apps", "Deployment").to_string(), "Deployment.apps");
        assert_eq!(GroupVersionKind::new("apps", "v1", "Deployment").api_version(), "apps/v1");
    }
}
