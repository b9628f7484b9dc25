//! Rules of `Gateway`.

use super::texts::is_label;
use super::{Problem, field};
use crate::Gateway;
use crate::gateway::{Server, ServerTls};

const PROTOCOLS: [&str; 8] = ["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS"];

pub(super) fn check(spec: &Gateway, problems: &mut Vec<Problem>) {
    if spec.servers.is_empty() {
        problems.push(Problem::error(
            "spec.servers",
            "gateway must have at least one server",
            "add a server",
        ));
    }
    field::labels(&spec.selector, "spec.selector", problems);
    for (index, server) in spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        check_server(server, &path, problems);
        let same_name = |it: &Server| !it.port.name.is_empty() && it.port.name == server.port.name;
        if spec.servers[..index].iter().any(same_name) {
            let reason =
                "port names in servers must be unique: duplicate name ".to_owned() + &server.port.name;
            problems.push(Problem::error(format!("{path}.port.name"), reason, "give each port its own name"));
        }
    }
}

fn check_server(server: &Server, path: &str, problems: &mut Vec<Problem>) {
    field::port(server.port.number, &format!("{path}.port.number"), problems);
    if server.port.name.is_empty() {
        problems.push(Problem::error(
            format!("{path}.port.name"),
            "port name must be set",
            "add a name such as http",
        ));
    }
    let protocol = server.port.protocol.to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        let reason = format!("invalid protocol \"{}\"", server.port.protocol);
        problems.push(Problem::error(
            format!("{path}.port.protocol"),
            reason,
            format!("use one of {}", PROTOCOLS.join(", ")),
        ));
    }
    if server.hosts.is_empty() {
        problems.push(Problem::error(
            format!("{path}.hosts"),
            "server config must contain at least one host",
            "add \"*\" for every host",
        ));
    }
    for (index, written) in server.hosts.iter().enumerate() {
        let inner = format!("{path}.hosts[{index}]");
        let (namespace, host) = written.split_once('/').unwrap_or(("*", written));
        if !matches!(namespace, "*" | ".") && !is_label(namespace, false) {
            problems.push(Problem::error(
                &inner,
                format!("\"{namespace}\" is not a namespace"),
                "use namespace/host, ./host or */host",
            ));
        }
        field::host(host, true, &inner, problems);
    }
    tls(server.tls.as_ref(), &protocol, path, problems);
}

fn tls(written: Option<&ServerTls>, protocol: &str, path: &str, problems: &mut Vec<Problem>) {
    let is_tls = matches!(protocol, "HTTPS" | "TLS");
    let inner = format!("{path}.tls");
    let Some(tls) = written else {
        if is_tls {
            let reason = format!("server must have TLS settings for {protocol} protocols");
            problems.push(Problem::error(inner, reason, "add tls with a mode and a credentialName"));
        }
        return;
    };
    let redirects_only = tls.mode.is_empty() && tls.https_redirect;
    if protocol != "TCP" && !is_tls && !redirects_only {
        let reason = "server cannot have TLS settings for plain text HTTP ports";
        problems.push(Problem::error(&inner, reason, "keep httpsRedirect alone, or use protocol HTTPS"));
    }
    if is_tls && tls.https_redirect {
        problems.push(Problem::error(
            &inner,
            "tls.httpsRedirect should only be used with http servers",
            "move it to the HTTP server",
        ));
    }
    let by_secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let by_file = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let needs_certificate = matches!(tls.mode.as_str(), "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL") && is_tls;
    if needs_certificate && !by_secret && !by_file && tls.tls_certificates.is_empty() {
        let reason = format!("{} TLS requires a server certificate", tls.mode);
        problems.push(Problem::error(&inner, reason, "add credentialName"));
    }
    let needs_roots = matches!(tls.mode.as_str(), "MUTUAL" | "OPTIONAL_MUTUAL");
    if needs_roots && !by_secret && tls.ca_certificates.is_empty() && tls.ca_cert_credential_name.is_empty() {
        let reason = "MUTUAL TLS requires a client CA bundle";
        problems.push(Problem::error(&inner, reason, "add credentialName or caCertificates"));
    }
    if tls.mode == "ISTIO_MUTUAL" && (by_secret || by_file) {
        problems.push(Problem::error(
            &inner,
            "ISTIO_MUTUAL TLS cannot have associated certificates",
            "remove them",
        ));
    }
}
