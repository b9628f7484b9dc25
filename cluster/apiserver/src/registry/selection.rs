//! Which objects a list or watch is about: namespace, label selector, field selector.

use std::borrow::Cow;

use cluster_machinery::{FieldSelector, LabelSelector, selector::FieldTerm};
use serde_json::Value;

use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    object,
};

/// A filter over objects of one kind.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

// === impl Selection ===

impl Selection {
    /// Reads the selectors of a request; a name in the path counts as a field selector.
    ///
    /// # Errors
    /// 400 for selectors that do not parse or name unsupported fields.
    pub(crate) fn read(ctx: &Context, kind: &Kind) -> ApiResult<Self> {
        let labels = ctx.query.get("labelSelector").unwrap_or_default().parse();
        let labels: LabelSelector =
            labels.map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields = ctx.query.get("fieldSelector").unwrap_or_default().parse();
        let mut fields: FieldSelector = fields
            .map_err(|error| ApiError::bad_request(format!("unable to parse field selector: {error}")))?;
        if !ctx.info.name.is_empty() {
            let name =
                FieldTerm { field: "metadata.name".to_owned(), value: ctx.info.name.clone(), equal: true };
            fields.terms.push(name);
        }
        for term in &fields.terms {
            if value_of(kind, &Value::Null, &term.field).is_none() {
                return Err(ApiError::bad_request(format!("field label not supported: {}", term.field)));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if the selector says so.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    pub(crate) fn matches(&self, kind: &Kind, object: &Value) -> bool {
        self.labels.matches_object(object)
            && self
                .fields
                .matches(|field| Some(Cow::Owned(value_of(kind, object, field).unwrap_or_default())))
    }
}

fn value_of(kind: &Kind, object: &Value, field: &str) -> Option<String> {
    match field {
        "metadata.name" => Some(object::name(object).to_owned()),
        "metadata.namespace" if kind.namespaced => Some(object::namespace(object).to_owned()),
        _ => match &kind.custom {
            Some(custom) => custom.selectable(object, field),
            None => kind.strategy.selectable(object, field),
        },
    }
}
