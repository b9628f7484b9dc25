//! Services that authorize requests, as the mesh configuration's `extensionProviders` name them for the action `CUSTOM`.

use std::time::Duration;

/// A service that authorizes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthzProvider {
    /// Name by which policies refer to it.
    pub name: String,
    /// `host`, or `namespace/host`.
    pub service: String,
    /// Port of the service.
    pub port: u16,
    /// Time for an answer.
    pub timeout: Option<Duration>,
    /// Without an answer requests pass.
    pub fail_open: bool,
    /// Status without an answer; 403 when absent.
    pub status_on_error: Option<u16>,
    /// The route is chosen anew after a yes.
    pub clear_route_cache: bool,
    /// How much of the body it is told.
    pub body: Option<AuthzBody>,
    /// How it is spoken to.
    pub protocol: AuthzProtocol,
}

/// How much of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthzBody {
    /// Bytes at most.
    pub max_request_bytes: u32,
    /// Longer bodies are cut there instead of refused.
    pub allow_partial_message: bool,
    /// As bytes, not as text.
    pub pack_as_bytes: bool,
}

/// How an authorizing service is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthzProtocol {
    /// `envoyExtAuthzGrpc`
    Grpc,
    /// `envoyExtAuthzHttp`; header names may begin or end with `*`.
    Http {
        /// Put before the path.
        path_prefix: String,
        /// Headers it is told.
        include_request_headers: Vec<String>,
        /// Headers added to what it is told.
        include_additional_headers: Vec<(String, String)>,
        /// Headers of a yes that the application gets.
        headers_to_upstream_on_allow: Vec<String>,
        /// Headers of a yes that the client gets.
        headers_to_downstream_on_allow: Vec<String>,
        /// Headers of a no that the client gets.
        headers_to_downstream_on_deny: Vec<String>,
    },
}
