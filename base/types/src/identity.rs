//! SPIFFE identities of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! Parsing is strict (SPIFFE-ID specification, section 2): what is not exactly an identity is none. Matching in policy works on
//! the parsed value or its exact text, never on a pattern built from it.

use std::{fmt, str::FromStr};

/// SPIFFE's bound on a whole identity, in bytes.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// SPIFFE's bound on a trust domain, in bytes.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

/// The identity that a workload's certificate proves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Box<str>,
    domain_end: u32,
    /// Where namespace and service account stand in `text`, when the path has Istio's form.
    workload: Option<WorkloadSpan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct WorkloadSpan {
    namespace: (u32, u32),
    service_account: (u32, u32),
}

/// Why a text is not a SPIFFE identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// Longer than 2,048 bytes.
    #[error("a SPIFFE ID must not be longer than {SPIFFE_ID_BYTES_MAX} bytes")]
    TooLong,
    /// Does not start with `spiffe://`.
    #[error("a SPIFFE ID must start with `{SCHEME}`")]
    Scheme,
    /// Empty, too long, or with a character outside `a-z0-9.-_`.
    #[error(
        "the trust domain of a SPIFFE ID must be 1 to {TRUST_DOMAIN_BYTES_MAX} of the characters a-z, 0-9, `.`, `-` and `_`"
    )]
    TrustDomain,
    /// An empty, `.` or `..` segment, a trailing slash, or a character outside `a-zA-Z0-9.-_`.
    #[error(
        "the path of a SPIFFE ID must have non-empty segments of the characters a-z, A-Z, 0-9, `.`, `-` and `_`"
    )]
    Path,
}

// === impl SpiffeId ===

impl SpiffeId {
    /// The identity of a service account's pods.
    ///
    /// # Errors
    /// When a part has a character that an identity must not have.
    pub fn workload(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        let id: Self = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()?;
        // A slash in a name would make a valid identity of somebody else.
        let exact = id.trust_domain() == trust_domain
            && id.namespace() == Some(namespace)
            && id.service_account() == Some(service_account);
        if exact { Ok(id) } else { Err(InvalidSpiffeId::Path) }
    }

    /// The whole identity as written in certificates.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain, such as `cluster.local`.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.domain_end as usize]
    }

    /// The path with its leading slash; empty for the identity of a trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.domain_end as usize..]
    }

    /// The namespace, when the path is `/ns/<namespace>/sa/<service account>`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.workload.map(|w| &self.text[w.namespace.0 as usize..w.namespace.1 as usize])
    }

    /// The service account, when the path is `/ns/<namespace>/sa/<service account>`.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.workload.map(|w| &self.text[w.service_account.0 as usize..w.service_account.1 as usize])
    }

    /// The identity without its scheme, as Istio's policies write principals: `cluster.local/ns/a/sa/b`.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.text[SCHEME.len()..]
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(InvalidSpiffeId::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidSpiffeId::Scheme)?;
        let domain = rest.split('/').next().unwrap_or_default();
        let domain_ok =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if domain.is_empty() || domain.len() > TRUST_DOMAIN_BYTES_MAX || !domain.bytes().all(domain_ok) {
            return Err(InvalidSpiffeId::TrustDomain);
        }
        let path = &rest[domain.len()..];
        if !path.is_empty() && !path[1..].split('/').all(segment_ok) {
            return Err(InvalidSpiffeId::Path);
        }
        let domain_end = SCHEME.len() + domain.len();
        Ok(Self {
            text: text.into(),
            domain_end: span(domain_end),
            workload: workload_span(path, domain_end),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn segment_ok(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn workload_span(path: &str, offset: usize) -> Option<WorkloadSpan> {
    let after_ns = path.strip_prefix("/ns/")?;
    let (namespace, tail) = after_ns.split_once('/')?;
    let service_account = tail.strip_prefix("sa/")?;
    if service_account.contains('/') {
        return None;
    }
    let ns = offset + "/ns/".len();
    let sa = ns + namespace.len() + "/sa/".len();
    Some(WorkloadSpan {
        namespace: (span(ns), span(ns + namespace.len())),
        service_account: (span(sa), span(sa + service_account.len())),
    })
}

/// Positions fit: an identity is at most [`SPIFFE_ID_BYTES_MAX`] bytes.
fn span(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_workload() {
        let id: SpiffeId = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".parse().unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), Some("default"));
        assert_eq!(id.service_account(), Some("bookinfo-reviews"));
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/bookinfo-reviews");
        assert_eq!(SpiffeId::workload("cluster.local", "default", "bookinfo-reviews"), Ok(id));
    }

    #[test]
    fn names_with_slashes_make_nobody() {
        for (domain, namespace, account) in [
            ("d", "a/b", "c"),
            ("d", "a", "b/c"),
            ("d/ns/a", "b", "c"),
            ("d", "", "c"),
            ("d", "a/sa/b/ns", "c"),
        ] {
            assert!(
                SpiffeId::workload(domain, namespace, account).is_err(),
                "{domain} {namespace} {account}"
            );
        }
    }

    #[test]
    fn other_paths_are_identities_without_a_workload() {
        for text in ["spiffe://a", "spiffe://a/b", "spiffe://a/ns/x", "spiffe://a/ns/x/sa/y/z"] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!((id.namespace(), id.service_account()), (None, None), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_exactly_an_identity() {
        for text in [
            "",
            "spiffe://",
            "SPIFFE://a/b",
            "https://a/b",
            "spiffe:///ns/a",
            "spiffe://A/b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b/",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "spiffe://a/b\0",
            "spiffe://a/é",
            "spiffe://a/b c",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
        assert_eq!(
            format!("spiffe://{}/a", "d".repeat(256)).parse::<SpiffeId>(),
            Err(InvalidSpiffeId::TrustDomain)
        );
        assert_eq!(
            format!("spiffe://a/{}", "p".repeat(2048)).parse::<SpiffeId>(),
            Err(InvalidSpiffeId::TooLong)
        );
    }
}
