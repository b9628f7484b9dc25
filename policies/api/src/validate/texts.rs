//! Texts with a grammar: host names, object names, URLs, base64, gRPC status names.

use base64::Engine;

/// The bytes of a base64 text with padding.
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// The number of a gRPC status, by its name or its number.
#[must_use]
pub fn grpc_status(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = NAMES.iter().position(|it| *it == name).and_then(|it| u32::try_from(it).ok());
    by_name.or_else(|| name.parse().ok().filter(|it| *it <= 16))
}

/// Host and port of an `http` or `https` URL.
#[must_use]
pub fn url_host(url: &str) -> Option<(String, u16)> {
    let (default_port, rest) = match url.split_once("://")? {
        ("http", rest) => (80, rest),
        ("https", rest) => (443, rest),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().filter(|it| !it.is_empty() && !it.contains('@'))?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => {
            Some((host.to_ascii_lowercase(), port.parse().ok().filter(|it| *it > 0)?))
        }
        Some(_) => None,
        None => Some((authority.to_ascii_lowercase(), default_port)),
    }
}

/// What is wrong with a host name, a wildcard prefix allowed.
#[must_use]
pub fn host_problem(host: &str) -> Option<String> {
    if host.is_empty() {
        return Some("domain name empty is not allowed".to_owned());
    }
    if host == "*" {
        return None;
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.len() > 255 {
        return Some(format!("domain name \"{host}\" is too long (max 255)"));
    }
    // A trailing dot makes a name absolute.
    let name = name.strip_suffix('.').unwrap_or(name);
    let bad = name.split('.').find(|label| !is_label(label, true))?;
    Some(if bad.contains('*') {
        format!("domain name \"{host}\" may have a wildcard only as its whole first part")
    } else {
        format!("domain name \"{host}\" invalid (label \"{bad}\" invalid)")
    })
}

/// Lower-case letters, digits, dashes and dots, as object names are.
pub(crate) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| is_label(label, false))
        && !name.contains(|c: char| c.is_ascii_uppercase())
}

/// One label of a DNS name.
pub(crate) fn is_label(label: &str, underscore: bool) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || (underscore && c == '_');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || (underscore && c == '_'));
    (1..=63).contains(&label.len())
        && label.chars().all(inner)
        && edge(label.chars().next())
        && edge(label.chars().next_back())
}

/// A header's name.
pub(crate) fn is_header_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What is wrong with an expression that RE2 must understand: no look-around, no back references.
pub(crate) fn regex_problem(expression: &str) -> Option<String> {
    if expression.len() > 1024 {
        return Some(format!("regex is too large, it has {} of at most 1024 characters", expression.len()));
    }
    let error = regex::Regex::new(expression).err()?;
    let text = error.to_string();
    Some(
        text.lines().last().unwrap_or("is not a regular expression").trim_start_matches("error: ").to_owned(),
    )
}
