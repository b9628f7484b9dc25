//! Whether an object means something: types by schema, then each kind's own rules, then references between objects.
//!
//! Every problem has the path of its field, so that a caller can name the line ([`crate::document`]), a reason in Istio's words where
//! Istio has any, and a fix.

mod authorization;
mod destination_rule;
mod field;
mod gateway;
mod http_route;
mod references;
mod service_entry;
mod sidecar;
mod texts;
mod virtual_service;

use serde_json::Value;

use crate::kind::{Kind, Spec};
use crate::{crd, schema};

pub use references::{Known, KnownService, references};
pub use texts::{base64, grpc_status, host_problem, url_host};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object is accepted and probably not what was meant.
    Warning,
    /// The object is refused.
    Error,
}

/// Something wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Path of the field, such as `spec.http[0].route[1].weight`; empty for the object itself.
    pub path: String,
    /// Istio's code for it, where Istio has one.
    pub code: Option<&'static str>,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

/// Everything wrong with an object that can be seen in it alone; `None` when its kind is not one of ours.
#[must_use]
pub fn validate(object: &Value) -> Option<Vec<Problem>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::of(text("apiVersion"), text("kind"))?;
    let mut problems = envelope(object);
    let empty = Value::Object(serde_json::Map::new());
    let written = object.get("spec").filter(|it| !it.is_null()).unwrap_or(&empty);
    let violations = schema::check(&crd::spec(kind), written, "spec");
    problems.extend(violations.into_iter().map(|it| Problem {
        severity: Severity::Error,
        code: it.unknown_field.then_some("IST0106"),
        path: it.path,
        reason: it.reason,
        fix: it.fix,
    }));
    match Spec::parse(kind, Some(written)) {
        Ok(spec) => {
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
            of_kind(&spec, namespace, &mut problems);
        }
        // The schema has said already where types are wrong; durations it leaves to the parser.
        Err(error) if problems.is_empty() => problems.push(field::unreadable(written, &error)),
        Err(_) => {}
    }
    Some(problems)
}

fn of_kind(spec: &Spec, namespace: &str, problems: &mut Vec<Problem>) {
    match spec {
        Spec::VirtualService(spec) => virtual_service::check(spec, problems),
        Spec::DestinationRule(spec) => destination_rule::check(spec, problems),
        Spec::Gateway(spec) => gateway::check(spec, problems),
        Spec::ServiceEntry(spec) => service_entry::check(spec, problems),
        Spec::Sidecar(spec) => sidecar::check(spec, problems),
        Spec::PeerAuthentication(spec) => authorization::peer(spec, namespace, problems),
        Spec::RequestAuthentication(spec) => authorization::request(spec, problems),
        Spec::AuthorizationPolicy(spec) => authorization::policy(spec, problems),
        Spec::Telemetry(_) => {}
    }
}

fn envelope(object: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let has_prefix = object.pointer("/metadata/generateName").is_some();
    if name.is_empty() && !has_prefix {
        problems.push(Problem::error("metadata.name", "is missing", "add a name"));
    } else if !name.is_empty() && !texts::is_subdomain(name) {
        let fix = "use lower-case letters, digits, \"-\" and \".\", at most 253, starting and ending with a letter or digit";
        problems.push(Problem::error("metadata.name", format!("\"{name}\" is not a valid name"), fix));
    }
    if let Some(fields) = object.as_object() {
        const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
        for field in fields.keys().filter(|it| !KNOWN.contains(&it.as_str())) {
            let fix = schema::nearest(field, KNOWN.into_iter()).map_or_else(
                || "move it under spec or remove it".to_owned(),
                |known| format!("did you mean `{known}`?"),
            );
            problems.push(Problem {
                code: Some("IST0106"),
                ..Problem::error(field, format!("unknown field \"{field}\""), fix)
            });
        }
    }
    problems
}

// === impl Problem ===

impl Problem {
    /// An error at a field.
    pub(crate) fn error(path: impl Into<String>, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: path.into(),
            code: None,
            reason: reason.into(),
            fix: fix.into(),
        }
    }

    /// A warning at a field.
    pub(crate) fn warning(
        path: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, reason, fix) }
    }

    /// Whether the problem is only that a field is not known.
    #[must_use]
    pub fn is_unknown_field(&self) -> bool {
        self.reason.starts_with("unknown field ")
    }

    /// With Istio's code.
    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

#[cfg(test)]
mod tests;
