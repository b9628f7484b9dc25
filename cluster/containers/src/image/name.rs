//! Image names: what people write, completed the way Docker and containerd complete it. Pure.

/// Completes a name: `busybox` → `docker.io/library/busybox:latest`. `None` if it cannot be an image's name.
pub(crate) fn normalize(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > 512 {
        return None;
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(valid_digest(digest)?)),
        None => (name, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        // A colon before a slash belongs to a port.
        Some((path, tag)) if !tag.contains('/') => (path, Some(valid_tag(tag)?)),
        _ => (rest, None),
    };
    let (domain, repository) = split_domain(path);
    let valid = !repository.is_empty() && repository.split('/').all(valid_component) && valid_domain(&domain);
    if !valid {
        return None;
    }
    Some(match (tag, digest) {
        (_, Some(digest)) => format!("{domain}/{repository}@{digest}"),
        (Some(tag), None) => format!("{domain}/{repository}:{tag}"),
        (None, None) => format!("{domain}/{repository}:latest"),
    })
}

/// The first component is a registry if it looks like a host: a dot, a port, or `localhost`.
fn split_domain(path: &str) -> (String, String) {
    match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (first.to_owned(), if first == "docker.io" { library(rest) } else { rest.to_owned() })
        }
        _ => ("docker.io".to_owned(), library(path)),
    }
}

fn library(path: &str) -> String {
    if path.contains('/') || path.is_empty() { path.to_owned() } else { format!("library/{path}") }
}

fn valid_digest(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()))
        .then_some(digest)
}

fn valid_tag(tag: &str) -> Option<&str> {
    let first = tag.bytes().next()?;
    let valid = tag.len() <= 128
        && (first.is_ascii_alphanumeric() || first == b'_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    valid.then_some(tag)
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').unwrap_or((domain, "1"));
    let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    host.split('.').all(label) && port.parse::<u16>().is_ok()
}

/// Lower-case letters and digits, with single separators between them.
fn valid_component(component: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(component.bytes().next())
        && edge(component.bytes().last())
        && component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && !component.contains("..")
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn short_names_are_completed() {
        for (written, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("istio/proxy:1.2", "docker.io/istio/proxy:1.2"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("mesh.local/sidecar:0.1.0", "mesh.local/sidecar:0.1.0"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
        ] {
            assert_eq!(normalize(written).as_deref(), Some(full), "{written}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(normalize(&format!("a:1@{digest}")), Some(format!("docker.io/library/a@{digest}")));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in
            ["", "Upper", "a:", "a:-x", "a//b", "../x", "a b", "x/..", "a@sha256:1", "/a", "a/", ":tag"]
        {
            assert_eq!(normalize(wrong), None, "{wrong}");
        }
    }
}
