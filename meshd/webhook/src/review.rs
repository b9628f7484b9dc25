//! The envelope: `AdmissionReview` of `admission.k8s.io/v1`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A request to admit an object.
#[derive(Debug)]
pub struct Request {
    uid: String,
    /// The object as it would be stored; null on deletion.
    pub object: Value,
    /// Its namespace; empty for kinds without one.
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
}

/// The body is not an admission review of version 1 with a request.
#[derive(Debug, thiserror::Error)]
#[error("the body must be an AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
pub struct InvalidReview(String);

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// As it is, with warnings for the person who wrote it.
    Allow(Vec<String>),
    /// With these changes.
    Patch(json_patch::Patch),
    /// Not at all, for this reason.
    Deny {
        /// HTTP status.
        code: u16,
        /// The text that people see after `admission webhook "…" denied the request: `.
        message: String,
    },
}

impl Request {
    /// Reads a review.
    ///
    /// # Errors
    /// [`InvalidReview`] when it is none.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidReview> {
        let mut review: Value = serde_json::from_slice(body).map_err(|e| InvalidReview(e.to_string()))?;
        if review["apiVersion"] != "admission.k8s.io/v1" {
            return Err(InvalidReview(format!("apiVersion is {}", review["apiVersion"])));
        }
        let mut request = review["request"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let uid = text(&request["uid"]);
        if uid.is_empty() {
            return Err(InvalidReview("request.uid is missing".into()));
        }
        let (namespace, operation) = (text(&request["namespace"]), text(&request["operation"]));
        Ok(Self { uid, object: request["object"].take(), namespace, operation })
    }

    /// The review that answers this request.
    #[must_use]
    pub fn answer(&self, answer: &Answer) -> Value {
        let mut response = json!({"uid": self.uid, "allowed": true});
        match answer {
            Answer::Allow(warnings) if warnings.is_empty() => {}
            Answer::Allow(warnings) => response["warnings"] = json!(warnings),
            Answer::Patch(patch) => {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(json!(patch).to_string()));
            }
            Answer::Deny { code, message } => {
                response["allowed"] = json!(false);
                response["status"] = json!({"code": code, "message": message});
            }
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}
