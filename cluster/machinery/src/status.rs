//! The error object of the API, `Status`, in the shapes and words that clients of Kubernetes know.

mod field;

use std::fmt;

use serde::Serialize;

pub use field::{FieldError, FieldErrorKind};

use crate::gvk::{GroupKind, GroupResource};

/// A `Status` object; most are failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    kind: &'static str,
    api_version: &'static str,
    /// List metadata; its `continue` is how an expired list goes on.
    pub metadata: StatusMeta,
    /// `Success` or `Failure`.
    pub status: &'static str,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// One word for programs, `NotFound`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status code.
    pub code: u16,
}

/// The list metadata of a [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StatusMeta {
    /// A token with which an expired list can go on at a newer revision.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
}

/// What a [`Status`] is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its resource; for invalid objects, its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The single faults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// One word for programs, `FieldValueRequired`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field it is about, `spec.containers[0].image`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

// === impl Status ===

impl Status {
    /// A failure with nothing but its words.
    pub fn failure(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: StatusMeta::default(),
            status: "Failure",
            message: message.into(),
            reason,
            details: None,
            code,
        }
    }

    /// A success, as a delete answers it.
    #[must_use]
    pub fn success(resource: &GroupResource, name: &str, uid: &str) -> Self {
        let details = Details { uid: uid.to_owned(), ..Details::of(resource, name) };
        Self { status: "Success", details: Some(Box::new(details)), ..Self::failure(200, "", "") }
    }

    /// With details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    fn with_cause(mut self, reason: &str, message: impl Into<String>) -> Self {
        let cause = Cause { reason: reason.to_owned(), message: message.into(), field: String::new() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// 404: `pods "x" not found`.
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{resource} \"{name}\" not found"))
            .with_details(Details::of(resource, name))
    }

    /// 404 for a path nobody serves.
    #[must_use]
    pub fn unknown_path() -> Self {
        Self::failure(404, "NotFound", "the server could not find the requested resource")
            .with_details(Details::default())
    }

    /// 409: `deployments.apps "x" already exists`.
    #[must_use]
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, "AlreadyExists", format!("{resource} \"{name}\" already exists"))
            .with_details(Details::of(resource, name))
    }

    /// 409 for a generated name that was taken.
    #[must_use]
    pub fn generated_name_taken(resource: &GroupResource, name: &str) -> Self {
        let message = format!(
            "{resource} \"{name}\" already exists, the server was not able to generate a unique name for the object"
        );
        Self::failure(409, "AlreadyExists", message).with_details(Details::of(resource, name)).retry_after(1)
    }

    /// 409: `Operation cannot be fulfilled on pods "x": …`.
    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::failure(409, "Conflict", message).with_details(Details::of(resource, name))
    }

    /// 409 for an update of an object that somebody else has changed.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 422: `Pod "x" is invalid: spec.containers: Required value`.
    #[must_use]
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut message = format!("{kind} \"{name}\" is invalid");
        if !texts.is_empty() {
            message.push_str(": ");
            message.push_str(&list);
        }
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_string(),
            kind: kind.kind.to_string(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..Details::default()
        };
        Self::failure(422, "Invalid", message).with_details(details)
    }

    /// 403: `pods "x" is forbidden: …`; without a name, `pods is forbidden: …`.
    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::failure(403, "Forbidden", message).with_details(Details::of(resource, name))
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 400 with these words.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_details(Details::default())
    }

    /// 406 with the media types that are served.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, "NotAcceptable", message)
    }

    /// 415 with the media types that are read.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 410 for a list or watch that begins at a revision that is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 410 for a watch: `too old resource version: 5 (9)`.
    #[must_use]
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504 for a revision that does not exist yet.
    #[must_use]
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        Self::failure(504, "Timeout", message)
            .with_cause("ResourceVersionTooLarge", "Too large resource version")
            .retry_after(1)
    }

    /// 504: `Timeout: …`.
    #[must_use]
    pub fn timeout(why: &str, retry_after_seconds: u32) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {why}")).retry_after(retry_after_seconds)
    }

    /// 413: `Request entity is too large: …`.
    #[must_use]
    pub fn too_large(why: &str) -> Self {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity is too large: {why}"))
    }

    /// 429 with these words.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }

    /// 500: `Internal error occurred: …`.
    #[must_use]
    pub fn internal(why: &str) -> Self {
        Self::failure(500, "InternalError", format!("Internal error occurred: {why}")).with_cause("", why)
    }

    /// 503 with these words.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// As JSON.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// As the bytes of a response body.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

// === impl Details ===

impl Details {
    /// Details that name an object.
    #[must_use]
    pub fn of(resource: &GroupResource, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.resource.to_string(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_that_clients_know() {
        let pods = GroupResource::new("", "pods");
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(Status::not_found(&pods, "x").message, "pods \"x\" not found");
        assert_eq!(
            Status::already_exists(&deployments, "x").message,
            "deployments.apps \"x\" already exists"
        );
        assert_eq!(
            Status::modified(&pods, "x").message,
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to the latest version and try again"
        );
        assert_eq!(Status::forbidden(&pods, "", "no").message, "pods is forbidden: no");
        assert_eq!(Status::forbidden(&pods, "x", "no").message, "pods \"x\" is forbidden: no");
    }

    #[test]
    fn invalid_lists_its_causes() {
        let pod = GroupKind::new("", "Pod");
        let one = [FieldError::required("spec.containers", "")];
        let status = Status::invalid(&pod, "x", &one);
        assert_eq!(status.message, "Pod \"x\" is invalid: spec.containers: Required value");
        let two = [
            FieldError::required("spec.containers", ""),
            FieldError::not_supported("spec.restartPolicy", "Maybe", &["Always", "Never"]),
        ];
        let status = Status::invalid(&GroupKind::new("apps", "Deployment"), "x", &two);
        assert_eq!(
            status.message,
            "Deployment.apps \"x\" is invalid: [spec.containers: Required value, spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\"]"
        );
        let causes = &status.to_value()["details"]["causes"];
        assert_eq!(
            causes[0],
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"})
        );
        assert_eq!(causes[1]["reason"], "FieldValueNotSupported");
    }

    #[test]
    fn wire_form() {
        let status = Status::not_found(&GroupResource::new("apps", "deployments"), "x");
        assert_eq!(
            status.to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "deployments.apps \"x\" not found",
                "reason": "NotFound", "details": {"name": "x", "group": "apps", "kind": "deployments"}, "code": 404})
        );
        let success = Status::success(&GroupResource::new("", "pods"), "x", "u").to_value();
        assert_eq!(
            success,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {"name": "x", "kind": "pods", "uid": "u"}, "code": 200})
        );
        let large = Status::too_large_resource_version(9, 5).to_value();
        assert_eq!(large["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(large["details"]["retryAfterSeconds"], 1);
    }
}
