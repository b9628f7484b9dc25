//! Selectors: conditions on labels and on fields.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Requirement, RequirementKind};

/// Why a selector cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// The text does not have the form of a selector.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// A key or value breaks the rules for labels.
    #[error("{field}: Invalid value: {value:?}: {problem}")]
    Value {
        /// `key` or `values`.
        field: &'static str,
        /// What was given.
        value: String,
        /// The rule it breaks.
        problem: String,
    },
    /// A `LabelSelector` object has an operator or value count that does not exist.
    #[error("{0}")]
    Object(String),
}
