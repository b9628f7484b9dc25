//! Validation.

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
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
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
        Some((host, port)) if !host.is_empty() => Some((host.to_ascii_lowercase(), port.parse().ok().filter(|it| *it > 0)?)),
        Some(_) => None,
        None => Some((authority.to_ascii_lowercase(), default_port)),
    }
}
