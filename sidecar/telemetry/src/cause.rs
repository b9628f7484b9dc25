//! Why a request failed, in one structure: the flag, the details, where it happened, and what a person can do about it. One table.

use serde::Serialize;

use crate::flags::{Flag, Flags};
use crate::log::Entry;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Envoy's response flag; `-` when it has none.
    pub flag: String,
    /// Envoy's details of the response code.
    pub details: String,
    /// Between whom it failed.
    pub hop: String,
    /// What to look at.
    pub hint: &'static str,
}

/// Details that say more than a flag, by their beginning.
const BY_DETAILS: [(&str, &str); 9] = [
    (
        "rbac_access_denied",
        "An AuthorizationPolicy of the server refused the client; the details name it. `meshctl get authorizationpolicies` shows it.",
    ),
    (
        "jwt_authn_access_denied",
        "The request's token is missing, expired or not from a trusted issuer; see the server's RequestAuthentication.",
    ),
    ("upgrade_failed", "The route or listener does not allow this protocol upgrade."),
    ("path_normalization_failed", "The path has escaped slashes, which this listener refuses."),
    (
        "http1.codec_error",
        "The client sent a message that is not valid HTTP/1; the details say which rule it breaks.",
    ),
    (
        "fault_filter_abort",
        "A fault is injected on purpose; `meshctl fault list` shows by which VirtualService.",
    ),
    (
        "upstream_per_try_timeout",
        "The server did not answer within the route's perTryTimeout; raise it or make the server faster.",
    ),
    ("via_upstream", "The server itself answered so; look at its own log."),
    (
        "filter_chain_gone",
        "Configuration changed and no longer takes this connection; the client should connect again.",
    ),
];

const BY_FLAG: [(Flag, &str); 20] = [
    (
        Flag::NoRouteFound,
        "No route matches host and path; check the VirtualService's hosts and matches, and that the service exists.",
    ),
    (
        Flag::NoClusterFound,
        "The route leads to a service or subset that does not exist; check the DestinationRule's subsets.",
    ),
    (
        Flag::NoHealthyUpstream,
        "The service has no ready endpoint, or all were put aside; see `kubectl get endpointslices` and `meshctl proxy config POD health`.",
    ),
    (
        Flag::UpstreamConnectionFailure,
        "No connection to the endpoint: nothing listens on its port, or mutual TLS failed; see transport_failure, the Service's targetPort and PeerAuthentication.",
    ),
    (
        Flag::UpstreamConnectionTermination,
        "The server closed the connection before it answered: it crashed, restarted, or closes idle connections early; see its log.",
    ),
    (Flag::UpstreamRemoteReset, "The server reset the stream before it answered; see its log."),
    (Flag::UpstreamRetryLimitExceeded, "All retries failed too; the flag beside it says why each did."),
    (
        Flag::UpstreamOverflow,
        "A limit of the DestinationRule's connectionPool was reached; raise it, or add replicas.",
    ),
    (
        Flag::UpstreamRequestTimeout,
        "The server did not answer within the route's timeout; raise it in the VirtualService or make the server faster.",
    ),
    (
        Flag::UpstreamProtocolError,
        "The server's answer is not valid HTTP; check the port's protocol (name or appProtocol).",
    ),
    (
        Flag::DownstreamConnectionTermination,
        "The client went away before it had the answer: its own timeout, most likely.",
    ),
    (Flag::DownstreamRemoteReset, "The client reset the stream before it had the answer."),
    (Flag::DownstreamProtocolError, "The client sent what is not valid HTTP."),
    (Flag::StreamIdleTimeout, "Nothing was sent for too long, either way."),
    (Flag::DurationTimeout, "The connection reached its longest life."),
    (
        Flag::FaultInjected,
        "A fault is injected on purpose; `meshctl fault list` shows by which VirtualService.",
    ),
    (Flag::RateLimited, "A rate limit was reached."),
    (
        Flag::UnauthorizedExternalService,
        "The external authorization service refused the request, or did not answer.",
    ),
    (
        Flag::OverloadManager,
        "The proxy sheds load because its memory is nearly used up; raise the limit of istio-proxy.",
    ),
    (Flag::DnsResolutionFailed, "The upstream's name cannot be resolved."),
];

const OTHERWISE: &str = "The server itself answered so; look at its own log.";

/// The cause of a failed request; none if it did not fail: an answer below 500 without a flag, and not one that policy gave.
pub fn of(entry: &Entry<'_>) -> Option<Cause> {
    let by_details = BY_DETAILS.iter().find(|(beginning, _)| entry.details.starts_with(beginning));
    let by_policy =
        entry.code >= 400 && by_details.is_some_and(|(beginning, _)| *beginning != "via_upstream");
    let mut flags = entry.flags;
    // A delay alone is no failure.
    flags.remove(Flag::DelayInjected);
    if entry.code < 500 && flags.is_empty() && !by_policy && (entry.code > 0 || entry.method.is_empty()) {
        return None;
    }
    Some(Cause {
        flag: entry.flags.to_string(),
        details: entry.details.to_owned(),
        hop: hop(entry),
        hint: hint(flags, by_details.map(|(_, hint)| *hint)),
    })
}

/// What a flag says goes before what the answer says, but not before what policy says.
fn hint(flags: Flags, by_details: Option<&'static str>) -> &'static str {
    let by_flag = BY_FLAG.iter().find(|(flag, _)| flags.contains(*flag)).map(|(_, hint)| *hint);
    match by_details {
        Some(hint) if hint != OTHERWISE => hint,
        other => by_flag.or(other).unwrap_or(OTHERWISE),
    }
}

fn hop(entry: &Entry<'_>) -> String {
    let client_side =
        [Flag::DownstreamConnectionTermination, Flag::DownstreamRemoteReset, Flag::DownstreamProtocolError];
    let here = if entry.hostname.is_empty() { "proxy" } else { entry.hostname };
    if client_side.iter().any(|flag| entry.flags.contains(*flag)) {
        let client = entry.downstream_remote.map_or_else(|| "client".to_owned(), |client| client.to_string());
        return format!("{client} -> {here}");
    }
    match (entry.upstream_cluster, entry.upstream_host) {
        ("", _) => here.to_owned(),
        (cluster, None) => format!("{here} -> {cluster}"),
        (cluster, Some(host)) => format!("{here} -> {cluster} ({host})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_a_hint_and_no_success_has() {
        let none = http::HeaderMap::new();
        let with = |code, flags: Flags, details: &'static str| {
            let mut entry = Entry::new(&none);
            (entry.method, entry.code, entry.flags, entry.details) = ("GET", code, flags, details);
            (entry.hostname, entry.upstream_cluster) = ("a-1", "outbound|80||b");
            of(&entry)
        };
        assert_eq!(with(200, Flags::NONE, "via_upstream"), None);
        assert_eq!(with(404, Flags::NONE, "via_upstream"), None);
        assert_eq!(with(200, Flag::DelayInjected.into(), "via_upstream"), None);
        let own = with(503, Flags::NONE, "via_upstream").unwrap();
        assert_eq!((own.flag.as_str(), own.hint), ("-", OTHERWISE));
        let denied = with(403, Flags::NONE, "rbac_access_denied_matched_policy[none]").unwrap();
        assert!(denied.hint.contains("AuthorizationPolicy"), "{denied:?}");
        assert_eq!(denied.hop, "a-1 -> outbound|80||b");
        let refused =
            with(503, Flag::UpstreamConnectionFailure.into(), "upstream_reset_before_response_started{x}")
                .unwrap();
        assert!(refused.hint.contains("targetPort"), "{refused:?}");
        assert_eq!(
            with(0, Flag::DownstreamConnectionTermination.into(), "downstream_remote_disconnect")
                .unwrap()
                .hop,
            "client -> a-1"
        );
        for flag in Flag::ALL {
            assert!(*flag == Flag::DelayInjected || with(503, (*flag).into(), "").is_some());
        }
    }
}
