//! The facts in the form that strategic merge patches ask for.

use std::borrow::Cow;

use cluster_machinery::patch::{FieldFacts, PatchSchema};

use super::{Shape, TypeId, facts};

/// A built-in type as a patch schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuiltIn(pub(crate) TypeId);

// === impl BuiltIn ===

impl PatchSchema for BuiltIn {
    fn field(&self, path: &[&str]) -> FieldFacts {
        let facts = facts();
        let mut shape = &Shape::Ref(self.0);
        let mut result = FieldFacts::default();
        for name in path {
            result = FieldFacts::default();
            while let Shape::List(item) = shape {
                shape = item;
            }
            match shape {
                Shape::Ref(id) => {
                    let Some(field) = facts.get(*id).field(name) else { return FieldFacts::default() };
                    result.merge = field.patch_merge;
                    result.merge_key = field.patch_key.map(Cow::Borrowed);
                    // Types such as ContainerStateRunning merge; only `replace` replaces, which no served type has on a map.
                    shape = &field.shape;
                }
                Shape::Map(item) => shape = item,
                _ => return FieldFacts::default(),
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_through_lists() {
        let schema = BuiltIn(facts().find("apps.v1.Deployment").unwrap());
        let env = schema.field(&["spec", "template", "spec", "containers", "env"]);
        assert!(env.merge);
        assert_eq!(env.merge_key.as_deref(), Some("name"));
        assert!(!schema.field(&["spec", "template", "spec", "containers", "args"]).merge);
        assert!(schema.field(&["metadata", "finalizers"]).merge);
    }
}
