//! Who may do what: RBAC over a cache that follows the store.

mod bootstrap_roles;
mod cache;
pub(crate) mod rules;

use std::sync::Arc;

use cluster_machinery::{GroupResource, Status};
use http::HeaderMap;

pub(crate) use bootstrap_roles::objects as bootstrap_objects;
pub(crate) use cache::{Rbac, follow};

use crate::{
    api::Api,
    authn::User,
    error::{ApiError, ApiResult},
    request::RequestInfo,
};

/// What is to be allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Set for paths that name no resource.
    pub(crate) path: Option<&'a str>,
}

/// Refuses a request that its user may not make.
///
/// # Errors
/// 403.
pub(crate) fn check(api: &Api, user: &User, info: &RequestInfo) -> ApiResult<()> {
    let question = Question {
        verb: info.verb,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: (!info.is_resource).then_some(&info.path),
    };
    if allowed(api, user, &question) { Ok(()) } else { Err(refusal(user, &question)) }
}

/// Whether RBAC allows it.
pub(crate) fn allowed(api: &Api, user: &User, question: &Question<'_>) -> bool {
    user.is_in("system:masters") || api.rbac.allows(user, question)
}

fn refusal(user: &User, question: &Question<'_>) -> ApiError {
    let name = &user.name;
    let verb = question.verb;
    if let Some(path) = question.path {
        let message = format!("forbidden: User {name:?} cannot {verb} path {path:?}");
        return ApiError::new(http::StatusCode::FORBIDDEN, "Forbidden", message);
    }
    let mut resource = question.resource.to_owned();
    if !question.subresource.is_empty() {
        resource = format!("{resource}/{}", question.subresource);
    }
    let scope = if question.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", question.namespace)
    };
    let why = format!(
        "User {name:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
        question.group
    );
    let subject = GroupResource::new(question.group.to_owned(), question.resource.to_owned());
    Status::forbidden(&subject, question.name, &why).into()
}

/// The rules that a role object holds.
pub(crate) fn rules_in(role: &serde_json::Value) -> Vec<rules::Rule> {
    rules::Rule::read(role)
}

/// Acts as somebody else, when the request says so and its user may.
///
/// # Errors
/// 403 when it may not, 400 for groups without a user.
pub(crate) fn impersonate(api: &Api, user: Arc<User>, headers: &HeaderMap) -> ApiResult<Arc<User>> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .map(str::to_owned)
        .collect();
    let Some(wanted) = text("impersonate-user") else {
        if groups.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::bad_request("requested groups without impersonating a user"));
    };
    let ask = |group: &str, resource: &str, namespace: &str, name: &str| {
        let question =
            Question { verb: "impersonate", group, resource, namespace, name, ..Question::default() };
        if allowed(api, &user, &question) { Ok(()) } else { Err(refusal(&user, &question)) }
    };
    let mut becomes = User { name: wanted, groups, ..User::default() };
    match becomes.service_account() {
        Some((namespace, name)) => ask("", "serviceaccounts", namespace, name)?,
        None => ask("", "users", "", &becomes.name)?,
    }
    for group in &becomes.groups {
        ask("", "groups", "", group)?;
    }
    if becomes.groups.is_empty()
        && let Some((namespace, _)) = becomes.service_account()
    {
        becomes.groups =
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    if becomes.name != "system:anonymous" && !becomes.is_in("system:authenticated") {
        becomes.groups.push("system:authenticated".to_owned());
    }
    if let Some(uid) = text("impersonate-uid") {
        ask("authentication.k8s.io", "uids", "", &uid)?;
        becomes.uid = uid;
    }
    Ok(Arc::new(becomes))
}
