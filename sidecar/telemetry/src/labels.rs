//! The labels of Istio's standard metrics, and the keys by which a worker finds a series again.

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use crate::flags::Flags;

/// What is known of a workload on either side of a request. Empty texts are written `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Name of the workload, such as a Deployment.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its canonical service.
    pub canonical_name: Box<str>,
    /// Its canonical revision.
    pub canonical_revision: Box<str>,
    /// Label `app`.
    pub app: Box<str>,
    /// Label `version`.
    pub version: Box<str>,
    /// The cluster it runs in.
    pub cluster: Box<str>,
}

impl Workload {
    /// The workload about which nothing is known; always the same one.
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Workload>> = LazyLock::new(Arc::default);
        Arc::clone(&UNKNOWN)
    }

    /// Reads Istio's endpoint metadata: name, namespace, canonical name, canonical revision, cluster.
    pub fn from_endpoint([name, namespace, canonical_name, revision, cluster]: [&str; 5]) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            canonical_name: canonical_name.into(),
            canonical_revision: revision.into(),
            app: canonical_name.into(),
            version: revision.into(),
            cluster: cluster.into(),
        }
    }
}

/// The service a request was for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its host name.
    pub host: Box<str>,
    /// Its short name.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
}

impl Service {
    /// The service about which nothing is known; always the same one.
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Service>> = LazyLock::new(Arc::default);
        Arc::clone(&UNKNOWN)
    }
}

/// Which side reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's sidecar.
    Source,
    /// The server's sidecar.
    Destination,
}

/// What the request spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    /// HTTP of any version.
    Http,
    /// gRPC.
    Grpc,
}

/// Whether the peer proved its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// Both sides did.
    MutualTls,
    /// Plain text.
    None,
    /// The client's side does not say.
    Unknown,
}

/// A gRPC status as a label: a number, or none for requests that are not gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrpcStatus(pub Option<u16>);

/// All that distinguishes an HTTP series. Shared parts are compared by address.
#[derive(Debug, Clone)]
pub struct HttpKey {
    /// Which side reports.
    pub reporter: Reporter,
    /// The client's workload.
    pub source: Arc<Workload>,
    /// The server's workload.
    pub destination: Arc<Workload>,
    /// The client's principal.
    pub source_principal: Arc<str>,
    /// The server's principal.
    pub destination_principal: Arc<str>,
    /// The service.
    pub service: Arc<Service>,
    /// HTTP or gRPC.
    pub protocol: RequestProtocol,
    /// The status; 0 when there was none.
    pub code: u16,
    /// The gRPC status.
    pub grpc: GrpcStatus,
    /// Why it ended as it did.
    pub flags: Flags,
    /// Whether identities were proven.
    pub security: SecurityPolicy,
}

/// All that distinguishes a TCP series.
#[derive(Debug, Clone)]
pub struct TcpKey {
    /// Which side reports.
    pub reporter: Reporter,
    /// The client's workload.
    pub source: Arc<Workload>,
    /// The server's workload.
    pub destination: Arc<Workload>,
    /// The client's principal.
    pub source_principal: Arc<str>,
    /// The server's principal.
    pub destination_principal: Arc<str>,
    /// The service.
    pub service: Arc<Service>,
    /// Why it ended as it did.
    pub flags: Flags,
    /// Whether identities were proven.
    pub security: SecurityPolicy,
}

/// The principal of a peer that proved none; always the same one.
pub fn no_principal() -> Arc<str> {
    static NONE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
    Arc::clone(&NONE)
}

fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<u8>() as usize
}

macro_rules! by_address {
    ($key:ident, [$($shared:ident),+], [$($plain:ident),+]) => {
        impl PartialEq for $key {
            fn eq(&self, other: &Self) -> bool {
                $(Arc::ptr_eq(&self.$shared, &other.$shared) &&)+ true $(&& self.$plain == other.$plain)+
            }
        }

        impl Eq for $key {}

        impl Hash for $key {
            fn hash<H: Hasher>(&self, state: &mut H) {
                $(state.write_usize(address(&self.$shared));)+
                $(self.$plain.hash(state);)+
            }
        }
    };
}

by_address!(
    HttpKey,
    [source, destination, source_principal, destination_principal, service],
    [reporter, protocol, code, grpc, flags, security]
);
by_address!(
    TcpKey,
    [source, destination, source_principal, destination_principal, service],
    [reporter, flags, security]
);

impl HttpKey {
    /// The labels as they are exposed, without braces.
    pub(crate) fn render(&self) -> Box<str> {
        let mut out = String::with_capacity(900);
        common(
            &mut out,
            self.reporter,
            &self.source,
            &self.destination,
            &self.source_principal,
            &self.destination_principal,
            &self.service,
        );
        label(
            &mut out,
            "request_protocol",
            if self.protocol == RequestProtocol::Grpc { "grpc" } else { "http" },
        );
        let mut number = String::new();
        // Writing to a String cannot fail.
        let _ = write!(number, "{}", self.code);
        label(&mut out, "response_code", &number);
        number.clear();
        if let Some(status) = self.grpc.0 {
            let _ = write!(number, "{status}");
        }
        raw_label(&mut out, "grpc_response_status", &number);
        label(&mut out, "response_flags", &self.flags.to_string());
        label(&mut out, "connection_security_policy", self.security.as_str());
        out.into_boxed_str()
    }

    /// The key under which everything is counted once there are too many series.
    pub(crate) fn overflow(&self) -> Self {
        Self {
            source: Workload::unknown(),
            destination: Workload::unknown(),
            source_principal: no_principal(),
            destination_principal: no_principal(),
            service: overflow_service(),
            code: self.code / 100 * 100,
            grpc: GrpcStatus(None),
            flags: Flags::NONE,
            ..self.clone()
        }
    }
}

impl TcpKey {
    /// The labels as they are exposed, without braces.
    pub(crate) fn render(&self) -> Box<str> {
        let mut out = String::with_capacity(800);
        common(
            &mut out,
            self.reporter,
            &self.source,
            &self.destination,
            &self.source_principal,
            &self.destination_principal,
            &self.service,
        );
        label(&mut out, "request_protocol", "tcp");
        label(&mut out, "response_flags", &self.flags.to_string());
        label(&mut out, "connection_security_policy", self.security.as_str());
        out.into_boxed_str()
    }

    /// The key under which everything is counted once there are too many series.
    pub(crate) fn overflow(&self) -> Self {
        Self {
            source: Workload::unknown(),
            destination: Workload::unknown(),
            source_principal: no_principal(),
            destination_principal: no_principal(),
            service: overflow_service(),
            flags: Flags::NONE,
            ..self.clone()
        }
    }
}

fn overflow_service() -> Arc<Service> {
    static OVERFLOW: LazyLock<Arc<Service>> = LazyLock::new(|| {
        Arc::new(Service { host: "overflow".into(), name: "overflow".into(), namespace: "".into() })
    });
    Arc::clone(&OVERFLOW)
}

impl SecurityPolicy {
    fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

fn common(
    out: &mut String,
    reporter: Reporter,
    source: &Workload,
    destination: &Workload,
    source_principal: &str,
    destination_principal: &str,
    service: &Service,
) {
    label(out, "reporter", if reporter == Reporter::Source { "source" } else { "destination" });
    for (side, workload, principal) in
        [("source", source, source_principal), ("destination", destination, destination_principal)]
    {
        let mut one = |name: &str, value: &str| label(out, &format!("{side}_{name}"), value);
        one("workload", &workload.name);
        one("canonical_service", &workload.canonical_name);
        one(
            "canonical_revision",
            if workload.canonical_revision.is_empty() { "latest" } else { &workload.canonical_revision },
        );
        one("workload_namespace", &workload.namespace);
        one("principal", principal);
        one("app", &workload.app);
        one("version", &workload.version);
        one("cluster", &workload.cluster);
    }
    label(out, "destination_service", &service.host);
    label(out, "destination_service_name", &service.name);
    label(out, "destination_service_namespace", &service.namespace);
}

fn label(out: &mut String, name: &str, value: &str) {
    raw_label(out, name, if value.is_empty() { "unknown" } else { value });
}

fn raw_label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}
