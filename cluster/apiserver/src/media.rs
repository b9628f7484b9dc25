//! Content negotiation: what the client accepts, what it sends.

use http::HeaderMap;

use crate::error::{ApiError, ApiResult};

/// The encoding of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// The form of objects in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects themselves.
    Whole,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// PartialObjectMetadata and its list.
    Metadata,
}

/// What a response should look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
}

/// The kind of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyType {
    Json,
    Yaml,
    Protobuf,
    JsonPatch,
    MergePatch,
    StrategicMergePatch,
    ApplyPatch,
    Other,
}

// === impl Encoding ===

impl Encoding {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        }
    }
}

/// One clause of an Accept header: media type and parameters, lower case.
pub(crate) fn clauses(headers: &HeaderMap) -> Vec<(String, Vec<(String, String)>)> {
    let mut list = Vec::new();
    for header in headers.get_all(http::header::ACCEPT) {
        for clause in header.to_str().unwrap_or_default().split(',').take(32) {
            let mut parts = clause.split(';');
            let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
            let parameters = parts
                .filter_map(|p| p.split_once('='))
                .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().trim_matches('"').to_owned()))
                .collect();
            if !media.is_empty() {
                list.push((media, parameters));
            }
        }
    }
    list
}

/// Chooses among what a client accepts; no Accept header means JSON.
///
/// # Errors
/// 406 when nothing fits.
pub(crate) fn negotiate(headers: &HeaderMap, transforms: bool) -> ApiResult<Accepted> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted { encoding: Encoding::Json, form: Form::Whole });
    }
    for (media, parameters) in &clauses {
        let encoding = match media.as_str() {
            "*/*" | "application/*" | "application/json" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        let parameter = |name: &str| parameters.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        let form = match (parameter("as"), parameter("g")) {
            (None, _) => Form::Whole,
            (Some("Table"), Some("meta.k8s.io")) if transforms => Form::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"))
                if transforms =>
            {
                Form::Metadata
            }
            _ => continue,
        };
        // Only the current version of the transforms is spoken; `v1beta1` clients name it second.
        if form != Form::Whole && parameter("v") != Some("v1") {
            continue;
        }
        return Ok(Accepted { encoding, form });
    }
    Err(ApiError::not_acceptable())
}

/// The kind of a request's body.
pub(crate) fn body_type(headers: &HeaderMap) -> BodyType {
    let value =
        headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match value.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => BodyType::Json,
        "application/yaml" => BodyType::Yaml,
        "application/vnd.kubernetes.protobuf" => BodyType::Protobuf,
        "application/json-patch+json" => BodyType::JsonPatch,
        "application/merge-patch+json" => BodyType::MergePatch,
        "application/strategic-merge-patch+json" => BodyType::StrategicMergePatch,
        "application/apply-patch+yaml" => BodyType::ApplyPatch,
        _ => BodyType::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> ApiResult<Accepted> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", text.parse().unwrap());
        negotiate(&headers, true)
    }

    #[test]
    fn tables_and_fallbacks() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl).unwrap().form, Form::Table);
        assert_eq!(accept("application/vnd.kubernetes.protobuf,application/json").unwrap().form, Form::Whole);
        assert_eq!(accept("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("text/html").unwrap_err().code(), 406);
    }
}
