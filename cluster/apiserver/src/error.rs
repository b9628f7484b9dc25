//! What the API answers when it refuses: Kubernetes' `Status` with its reasons, codes and texts.

use cluster_store::StoreError;
use http::StatusCode;
use serde_json::{Value, json};

use crate::kinds::Kind;

/// One field that is wrong, as `Status.details.causes` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// `FieldValueRequired` and the like.
    pub(crate) reason: &'static str,
    /// The path of the field.
    pub(crate) field: String,
    /// The sentence without the path.
    pub(crate) message: String,
}

/// A refusal. Boxed inside, so that results stay small.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Inner>);

#[derive(Debug, Clone, Default)]
struct Inner {
    code: u16,
    reason: &'static str,
    message: String,
    group: String,
    kind: String,
    name: String,
    uid: String,
    causes: Vec<Value>,
    retry_after_seconds: u32,
    continue_token: Option<String>,
    /// A whole Status object that a webhook gave.
    status: Option<Value>,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

// === impl FieldError ===

impl FieldError {
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {}: {detail}", show(value)),
        }
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {}", show(value)),
        }
    }

    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        Self {
            reason: "FieldValueNotSupported",
            field: field.into(),
            message: format!("Unsupported value: {}: supported values: {list}", show(value)),
        }
    }
}

/// A value inside a message: strings in quotes, the rest as JSON, both shortened.
fn show(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 512 {
        let mut end = 509;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

// === impl ApiError ===

impl ApiError {
    pub(crate) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code: code.as_u16(), reason, message: message.into(), ..Inner::default() }))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let cause = json!({"message": message});
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        error.0.causes.push(cause);
        error
    }

    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(crate) fn unsupported_media_type(detail: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", detail)
    }

    pub(crate) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        )
    }

    pub(crate) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
        )
    }

    pub(crate) fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        error.0.retry_after_seconds = retry_after_seconds;
        error
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} {name:?} not found", kind.qualified()))
            .about(kind, name)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified()))
            .about(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", kind.qualified())
        } else {
            format!("{} {name:?} is forbidden: {why}", kind.qualified())
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(kind, name)
    }

    /// 422 with one cause for each wrong field.
    pub(crate) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        texts.dedup();
        let list = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let qualified = if kind.group.is_empty() { kind.kind.to_string() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut error =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{qualified} {name:?} is invalid: {list}"))
                .about(kind, name);
        error.0.kind = kind.kind.to_string();
        error.0.causes = errors
            .iter()
            .map(|e| json!({"reason": e.reason, "message": e.message, "field": e.field}))
            .collect();
        error
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// Passes a Status on that somebody else made; `message` replaces its text.
    pub(crate) fn from_status(mut status: Value, code: u16, message: String) -> Self {
        status["kind"] = json!("Status");
        status["apiVersion"] = json!("v1");
        status["status"] = json!("Failure");
        status["code"] = json!(code);
        status["message"] = json!(message);
        if !status["metadata"].is_object() {
            status["metadata"] = json!({});
        }
        Self(Box::new(Inner { code, message, status: Some(status), ..Inner::default() }))
    }

    /// Names the object in `details`.
    pub(crate) fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.0.group = kind.group.to_string();
        self.0.kind = kind.resource.to_string();
        self.0.name = name.to_owned();
        self
    }

    /// Names something in `details` that need not be a served kind.
    pub(crate) fn details(mut self, group: &str, resource: &str, name: &str) -> Self {
        group.clone_into(&mut self.0.group);
        resource.clone_into(&mut self.0.kind);
        name.clone_into(&mut self.0.name);
        self
    }

    /// Adds a cause.
    pub(crate) fn cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let mut cause = json!({"reason": reason, "message": message});
        if !field.is_empty() {
            cause["field"] = json!(field);
        }
        self.0.causes.push(cause);
        self
    }

    /// Offers a token with which a list can go on.
    pub(crate) fn continuing(mut self, token: String) -> Self {
        self.0.continue_token = Some(token);
        self
    }

    pub(crate) fn code(&self) -> u16 {
        self.0.code
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.0.reason == "Conflict"
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.0.code == 404
    }

    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        (self.0.retry_after_seconds > 0).then_some(self.0.retry_after_seconds)
    }

    /// The Status object.
    pub(crate) fn status(&self) -> Value {
        let inner = &*self.0;
        if let Some(status) = &inner.status {
            return status.clone();
        }
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": inner.message, "reason": inner.reason, "code": inner.code});
        if let Some(token) = &inner.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        let mut details = serde_json::Map::new();
        for (key, value) in
            [("name", &inner.name), ("group", &inner.group), ("kind", &inner.kind), ("uid", &inner.uid)]
        {
            if !value.is_empty() {
                details.insert(key.to_owned(), json!(value));
            }
        }
        if !inner.causes.is_empty() {
            details.insert("causes".to_owned(), json!(inner.causes));
        }
        if inner.retry_after_seconds > 0 {
            details.insert("retryAfterSeconds".to_owned(), json!(inner.retry_after_seconds));
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { .. } => {
                Self::expired("The resourceVersion for the provided list or watch is too old.")
            }
            StoreError::TooSlow { .. } => Self::expired("The watch could not keep up; list again."),
            StoreError::TooLarge { .. } => Self::too_large(),
            other => Self::internal(other.to_string()),
        }
    }
}
