//! Faults of single fields, as validation finds them.

use std::fmt;

use serde_json::Value;

use super::Cause;

/// A fault of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong with it.
    pub kind: FieldErrorKind,
    /// Its path, `spec.containers[0].image`.
    pub field: String,
    /// The value, where the message shows it.
    pub value: Value,
    /// Further words; may be empty.
    pub detail: String,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// It must be there.
    Required,
    /// It is there twice.
    Duplicate,
    /// It has a wrong value.
    Invalid,
    /// It has a value of the wrong type.
    TypeInvalid,
    /// It has none of the known values.
    NotSupported,
    /// It may not be set or changed.
    Forbidden,
    /// It has too many bytes.
    TooLong,
    /// It has too many elements.
    TooMany,
    /// It names something that does not exist.
    NotFound,
}

// === impl FieldError ===

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), value: value.into(), detail: detail.into() }
    }

    /// `spec.containers: Required value`.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, field, Value::Null, detail)
    }

    /// `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, field, value, detail)
    }

    /// Like [`FieldError::invalid`], for a value of the wrong type.
    pub fn type_invalid(
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, field, value, detail)
    }

    /// `spec.type: Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
        Self::new(
            FieldErrorKind::NotSupported,
            field,
            value,
            format!("supported values: {}", list.join(", ")),
        )
    }

    /// `spec.selector: Forbidden: field is immutable`.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, Value::Null, detail)
    }

    /// `spec.ports[1]: Duplicate value: 80`.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, value, "")
    }

    /// `spec.x: Not found: "y"`.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, field, value, "")
    }

    /// `data: Too long: may not be more than 1048576 bytes`.
    pub fn too_long(field: impl Into<String>, bytes_max: usize) -> Self {
        Self::new(
            FieldErrorKind::TooLong,
            field,
            Value::Null,
            format!("may not be more than {bytes_max} bytes"),
        )
    }

    /// `spec.x: Too many: 9: must have at most 5 items`.
    pub fn too_many(field: impl Into<String>, count: usize, count_max: usize) -> Self {
        Self::new(FieldErrorKind::TooMany, field, count, format!("must have at most {count_max} items"))
    }

    /// What stands after the field's name.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        let shows_value = !matches!(
            self.kind,
            FieldErrorKind::Required | FieldErrorKind::Forbidden | FieldErrorKind::TooLong
        );
        if shows_value {
            text.push_str(": ");
            text.push_str(&self.value.to_string());
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    pub(super) fn cause(&self) -> Cause {
        Cause { reason: self.kind.reason().to_owned(), message: self.body(), field: self.field.clone() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

// === impl FieldErrorKind ===

impl FieldErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }

    /// The word in `details.causes[].reason`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(
            FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0").to_string(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(
            FieldError::invalid("metadata.name", "A", "bad").to_string(),
            "metadata.name: Invalid value: \"A\": bad"
        );
        assert_eq!(FieldError::forbidden("spec", "no").to_string(), "spec: Forbidden: no");
        assert_eq!(FieldError::duplicate("a[1]", 80).to_string(), "a[1]: Duplicate value: 80");
        assert_eq!(FieldError::too_many("a", 9, 5).to_string(), "a: Too many: 9: must have at most 5 items");
    }
}
