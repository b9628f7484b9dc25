//! Admission: what is changed or refused between the user's wish and the store. Built-in plugins first, then webhooks.

mod escalation;
pub(crate) mod plugins;
mod pod_security;
pub(crate) mod review;
pub(crate) mod webhooks;

use std::sync::Arc;

use serde_json::Value;

use crate::{context::Context, error::ApiResult, kinds::Kind};

/// What is about to happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// The occasion of an admission decision.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a> {
    pub(crate) kind: &'a Arc<Kind>,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
}

// === impl Operation ===

impl Operation {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Lets plugins and mutating webhooks change an object.
///
/// # Errors
/// A plugin's or webhook's refusal.
pub(crate) async fn mutate(
    ctx: &Context,
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    plugins::run(ctx, attributes, object)?;
    webhooks::mutate(ctx, attributes, object, old).await
}

/// Lets plugins and validating webhooks refuse an object.
///
/// # Errors
/// The refusal.
pub(crate) async fn validate(
    ctx: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    escalation::check(ctx, attributes, object, old)?;
    pod_security::check(ctx, attributes, object)?;
    webhooks::validate(ctx, attributes, object, old).await
}
