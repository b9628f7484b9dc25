//! Host names as people write them: short names, wildcards, and which of several patterns is the closest.

/// Completes a short name with the namespace of the object that uses it; names with a dot and wildcards stay.
#[must_use]
pub fn resolve(host: &str, namespace: &str, cluster_domain: &str) -> String {
    if host.is_empty() || host.contains('.') || host.contains('*') {
        return host.to_owned();
    }
    format!("{host}.{namespace}.svc.{cluster_domain}")
}

/// Whether the host is a wildcard: `*` or `*.suffix`.
#[must_use]
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether every name that `host` stands for is among those of `pattern`.
#[must_use]
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(host),
        Some(suffix) => {
            let host = host.strip_prefix('*').unwrap_or(host);
            host.len() >= suffix.len()
                && host.get(host.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
    }
}

/// Whether some name is among those of both.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// The narrower of two hosts that overlap.
#[must_use]
pub fn narrower<'a>(a: &'a str, b: &'a str) -> &'a str {
    if covers(a, b) { b } else { a }
}

/// How close a pattern is to the names it covers: exact names first, then the longest.
#[must_use]
pub fn specificity(pattern: &str) -> (bool, usize) {
    (!is_wildcard(pattern), pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_short_names_only() {
        assert_eq!(resolve("reviews", "default", "cluster.local"), "reviews.default.svc.cluster.local");
        for host in ["reviews.default", "a.b.c", "*", "*.x", ""] {
            assert_eq!(resolve(host, "default", "cluster.local"), host);
        }
    }

    #[test]
    fn wildcards_cover() {
        for (pattern, host, expected) in [
            ("*", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("*.b", "*.a.b", true),
            ("*.a.b", "*.b", false),
            ("a.b", "A.b", true),
            ("a.b", "*.b", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        assert_eq!(narrower("*.b", "a.b"), "a.b");
        assert!(specificity("a") > specificity("*.long.suffix"));
        assert!(specificity("*.a.b") > specificity("*.b"));
    }
}
