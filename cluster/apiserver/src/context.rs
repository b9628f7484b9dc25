//! What every handler is given: the server's parts, and one request with its user.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use parking_lot::Mutex;

use crate::{
    api::Api,
    authn::User,
    error::{ApiError, ApiResult},
    kinds::Kind,
    media::{Accepted, negotiate},
    request::{Query, RequestInfo},
};

/// How unknown and duplicate fields are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// One authorized request.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) api: Arc<Api>,
    pub(crate) user: Arc<User>,
    pub(crate) method: Method,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) raw_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) dry_run: bool,
    warnings: Mutex<Vec<String>>,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(
        api: Arc<Api>,
        user: Arc<User>,
        method: Method,
        info: RequestInfo,
        query: Query,
        raw_query: String,
        headers: HeaderMap,
    ) -> ApiResult<Self> {
        let dry_run = match query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "Invalid value: {other:?}: dryRun: Unsupported value: {other:?}: supported values: \"All\""
                )));
            }
        };
        let warnings = Mutex::new(Vec::new());
        Ok(Self { api, user, method, info, query, raw_query, headers, body: Bytes::new(), dry_run, warnings })
    }

    /// Adds a `Warning` header to the answer; a bounded number of them.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock();
        let text = text.into();
        if warnings.len() < 32 && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// What the answer should look like.
    ///
    /// # Errors
    /// 406.
    pub(crate) fn accepted(&self) -> ApiResult<Accepted> {
        negotiate(&self.headers, true)
    }

    /// The same for answers that have no table or metadata form.
    ///
    /// # Errors
    /// 406.
    pub(crate) fn accepted_plain(&self) -> ApiResult<Accepted> {
        negotiate(&self.headers, false)
    }

    pub(crate) fn field_validation(&self) -> ApiResult<FieldValidation> {
        match self.query.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(ApiError::unprocessable(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// Who changes fields: the parameter, or the program's name from User-Agent.
    pub(crate) fn field_manager(&self) -> String {
        if let Some(manager) = self.query.get("fieldManager") {
            return manager.chars().take(128).collect();
        }
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let program = agent.split('/').next().unwrap_or_default();
        if program.is_empty() { "unknown".to_owned() } else { program.chars().take(128).collect() }
    }

    /// The kind that the path names.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn kind(&self) -> ApiResult<Arc<Kind>> {
        let kinds = self.api.kinds.load();
        kinds
            .find(&self.info.group, &self.info.version, &self.info.resource)
            .cloned()
            .ok_or_else(ApiError::page_not_found)
    }
}
