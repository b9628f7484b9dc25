//! One conversation with a webhook: AdmissionReview out and in.

use serde_json::{Value, json};

use super::{
    Attributes, Operation,
    webhooks::{Hook, Place},
};
use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    object::{items, text},
    outbound,
};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What a webhook said.
#[derive(Debug)]
pub(crate) struct Answer(Value);

/// The AdmissionReview that asks.
pub(crate) fn request(
    ctx: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
    uid: &str,
) -> Value {
    let kind = attributes.kind;
    let type_of = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let resource = json!({"group": kind.group, "version": kind.version, "resource": kind.resource});
    let options = match attributes.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "PodExecOptions",
    };
    let options = json!({"apiVersion": "meta.k8s.io/v1", "kind": options});
    let mut request = json!({"uid": uid, "kind": type_of, "resource": resource, "requestKind": type_of,
        "requestResource": resource, "name": attributes.name, "operation": attributes.operation.word(),
        "userInfo": ctx.user.to_value(), "object": object, "oldObject": old, "dryRun": ctx.dry_run, "options": options});
    if kind.namespaced || kind.is("", "namespaces") {
        request["namespace"] = json!(if kind.namespaced { attributes.namespace } else { attributes.name });
    }
    if !attributes.subresource.is_empty() {
        request["subResource"] = json!(attributes.subresource);
        request["requestSubResource"] = json!(attributes.subresource);
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

/// Asks one webhook.
///
/// # Errors
/// Why there is no answer, for the user.
pub(crate) async fn call(
    ctx: &Context,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<Answer, String> {
    let uid = uuid::Uuid::new_v4().to_string();
    let review = request(ctx, attributes, object, old, &uid);
    let seconds = hook.timeout.as_secs();
    let (target, url) = match &hook.place {
        Place::Service { namespace, name, path, port } => {
            let slash = if path.starts_with('/') { "" } else { "/" };
            let url = format!("https://{name}.{namespace}.svc:{port}{slash}{path}?timeout={seconds}s");
            let target = outbound::service(
                &ctx.api,
                namespace,
                name,
                *port,
                &format!("{slash}{path}?timeout={seconds}s"),
            );
            (target, url)
        }
        Place::Url(url) => {
            let separator = if url.contains('?') { '&' } else { '?' };
            let url = format!("{url}{separator}timeout={seconds}s");
            (outbound::url(&ctx.api, &url), url)
        }
    };
    let work = async {
        let client = hook.client.as_ref().map_err(|why| format!("caBundle: {why}"))?;
        outbound::post(&ctx.api, client, &target?, review.to_string(), ANSWER_BYTES_MAX).await
    };
    let body = match tokio::time::timeout(hook.timeout, work).await {
        Ok(Ok(body)) => body,
        Ok(Err(why)) => return Err(format!("Post {url:?}: {why}")),
        Err(_) => return Err(format!("Post {url:?}: context deadline exceeded")),
    };
    let review: Value = serde_json::from_slice(&body)
        .map_err(|why| format!("couldn't get version/kind; json parse error: {why}"))?;
    let response = review.get("response").filter(|r| r.is_object()).ok_or("webhook response was absent")?;
    if text(response, "/uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, "/uid")));
    }
    Ok(Answer(response.clone()))
}

// === impl Answer ===

impl Answer {
    /// Passes warnings on, and a refusal.
    ///
    /// # Errors
    /// The refusal in Kubernetes' words.
    pub(crate) fn check(&self, ctx: &Context, name: &str) -> ApiResult<()> {
        for warning in items(&self.0, "/warnings").iter().filter_map(Value::as_str) {
            ctx.warn(warning);
        }
        if self.0["allowed"] == true {
            return Ok(());
        }
        let status = self.0.get("status").cloned().unwrap_or_else(|| json!({}));
        let denied = format!("admission webhook {name:?} denied the request");
        let message = match (text(&status, "/message"), text(&status, "/reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let code =
            status["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
        Err(ApiError::foreign(status, code.unwrap_or(403), message))
    }

    /// Applies the patch of a mutating webhook.
    ///
    /// # Errors
    /// 500 when the patch does not fit.
    pub(crate) fn patch(&self, name: &str, object: &mut Value) -> ApiResult<()> {
        let encoded = text(&self.0, "/patch");
        if encoded.is_empty() {
            return Ok(());
        }
        let wrong = |why: String| ApiError::internal(format!("failed calling webhook {name:?}: {why}"));
        if text(&self.0, "/patchType") != "JSONPatch" {
            return Err(wrong(format!("unsupported patch type {:?}", text(&self.0, "/patchType"))));
        }
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded)
            .map_err(|why| wrong(why.to_string()))?;
        let patch: Value = serde_json::from_slice(&bytes).map_err(|why| wrong(why.to_string()))?;
        cluster_machinery::patch::json(object, &patch).map_err(|why| wrong(why.to_string()))
    }
}
