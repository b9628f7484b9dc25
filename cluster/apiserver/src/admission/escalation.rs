//! Nobody grants what they do not hold: roles and bindings are checked against their writer's own rules.

use serde_json::Value;

use super::{Attributes, Operation};
use crate::{
    authz::{self, Question},
    context::Context,
    error::{ApiError, ApiResult},
    object::text,
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses roles and bindings that give more than their writer has.
///
/// # Errors
/// 403.
pub(crate) fn check(
    ctx: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let kind = attributes.kind;
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    if kind.group != GROUP || !writes || ctx.user.is_in("system:masters") {
        return Ok(());
    }
    let (verb, resource, name, wanted) = match &*kind.resource {
        "roles" | "clusterroles" => {
            if old.is_some_and(|old| {
                old["rules"] == object["rules"] && old["aggregationRule"] == object["aggregationRule"]
            }) {
                return Ok(());
            }
            ("escalate", &*kind.resource, attributes.name, authz::rules_in(object))
        }
        _ => {
            let role = text(object, "/roleRef/name");
            let resource = if text(object, "/roleRef/kind") == "Role" { "roles" } else { "clusterroles" };
            ("bind", resource, role, ctx.api.rbac.role(resource, attributes.namespace, role))
        }
    };
    let namespace = if kind.namespaced { attributes.namespace } else { "" };
    let privilege = Question { verb, group: GROUP, resource, namespace, name, ..Question::default() };
    if authz::allowed(&ctx.api, &ctx.user, &privilege) {
        return Ok(());
    }
    let held = ctx.api.rbac.rules(&ctx.user, namespace);
    let missing: Vec<String> = wanted
        .iter()
        .filter(|rule| !rule.is_covered_by(&held))
        .map(|rule| rule.to_value().to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        ctx.user.name,
        ctx.user.groups,
        missing.join("\n")
    );
    Err(ApiError::forbidden(kind, attributes.name, &why))
}
