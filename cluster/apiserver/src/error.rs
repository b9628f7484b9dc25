//! What the API answers when it refuses: a `Status`, made from this server's kinds.

use cluster_machinery::{
    Status,
    status::{Cause, Details},
};
use cluster_store::StoreError;
use http::StatusCode;
use serde_json::{Value, json};

use crate::kinds::Kind;

pub(crate) use cluster_machinery::FieldError;

/// A refusal. Boxed inside, so that results stay small.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: Status,
    /// A whole Status object that a webhook gave instead.
    foreign: Option<Value>,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

// === impl ApiError ===

impl ApiError {
    pub(crate) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Status::failure(code.as_u16(), reason, message).into()
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Status::bad_request(message).into()
    }

    pub(crate) fn unauthorized() -> Self {
        Status::unauthorized().into()
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Status::internal(&message.into()).into()
    }

    pub(crate) fn page_not_found() -> Self {
        Status::unknown_path().into()
    }

    pub(crate) fn method_not_allowed() -> Self {
        Status::method_not_allowed().into()
    }

    pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Self {
        Status::unsupported_media_type(accepted).into()
    }

    pub(crate) fn not_acceptable() -> Self {
        Status::not_acceptable(&["application/json", "application/yaml"]).into()
    }

    pub(crate) fn too_large() -> Self {
        Status::too_large("limit is 3145728").into()
    }

    pub(crate) fn timeout(why: &str) -> Self {
        Status::timeout(why, 1).into()
    }

    pub(crate) fn too_large_revision(wanted: u64, current: u64) -> Self {
        Status::too_large_resource_version(wanted, current).into()
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Status::expired(message).into()
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Status::not_found(&kind.group_resource(), name).into()
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        Status::already_exists(&kind.group_resource(), name).into()
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Status::conflict(&kind.group_resource(), name, why).into()
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        Status::modified(&kind.group_resource(), name).into()
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Status::forbidden(&kind.group_resource(), name, why).into()
    }

    /// 422 with one cause for each wrong field.
    pub(crate) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Status::invalid(&kind.group_kind(), name, errors).into()
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// Passes a Status on that somebody else made; `message` replaces its text.
    pub(crate) fn foreign(mut foreign: Value, code: u16, message: String) -> Self {
        foreign["kind"] = json!("Status");
        foreign["apiVersion"] = json!("v1");
        foreign["status"] = json!("Failure");
        foreign["code"] = json!(code);
        foreign["message"] = json!(message);
        if !foreign["metadata"].is_object() {
            foreign["metadata"] = json!({});
        }
        Self(Box::new(Inner { status: Status::failure(code, "", message), foreign: Some(foreign) }))
    }

    /// Names in `details` what it is about.
    pub(crate) fn about(mut self, kind: &Kind, name: &str) -> Self {
        let causes = std::mem::take(&mut self.details().causes);
        *self.details() = Details { causes, ..Details::of(&kind.group_resource(), name) };
        self
    }

    fn details(&mut self) -> &mut Details {
        self.0.status.details.get_or_insert_default()
    }

    /// Adds a cause.
    pub(crate) fn cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        self.details().causes.push(cause);
        self
    }

    /// Offers a token with which a list can go on.
    pub(crate) fn continuing(mut self, token: String) -> Self {
        self.0.status.metadata.continue_token = token;
        self
    }

    pub(crate) fn code(&self) -> u16 {
        self.0.status.code
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.0.status.reason == "Conflict"
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        self.0.status.details.as_ref()?.retry_after_seconds
    }

    /// The Status object.
    pub(crate) fn status(&self) -> Value {
        self.0.foreign.clone().unwrap_or_else(|| self.0.status.to_value())
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(Box::new(Inner { status, foreign: None }))
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.status.fmt(f)
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
