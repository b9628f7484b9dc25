//! `lb_subset_config`.

use crate::cluster::{SubsetFallback, SubsetSelector, Subsets};
use crate::convert::{Converted, boxed, each, enumeration, refuse};
use crate::invalid::Invalid;
use crate::metadata::proto::value;
use policies_xds::cluster::cluster::LbSubsetConfig;
use policies_xds::cluster::cluster::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy;
use policies_xds::cluster::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy, LbSubsetSelector,
};

pub(super) fn subsets(message: &LbSubsetConfig) -> Converted<Option<Subsets>> {
    if message.subset_selectors.is_empty() {
        // Envoy, too, balances without subsets then.
        return Ok(None);
    }
    refuse("scale_locality_weight", message.scale_locality_weight)?;
    refuse("panic_mode_any", message.panic_mode_any)?;
    refuse("list_as_any", message.list_as_any)?;
    let by_metadata = LbSubsetMetadataFallbackPolicy::FallbackList;
    refuse("metadata_fallback_policy", message.metadata_fallback_policy == i32::from(by_metadata))?;
    let fallback = match enumeration("fallback_policy", message.fallback_policy)? {
        LbSubsetFallbackPolicy::NoFallback => SubsetFallback::None,
        LbSubsetFallbackPolicy::AnyEndpoint => SubsetFallback::AnyEndpoint,
        LbSubsetFallbackPolicy::DefaultSubset => SubsetFallback::DefaultSubset,
    };
    let mut default_subset: Vec<(Box<str>, serde_json::Value)> = message
        .default_subset
        .iter()
        .flat_map(|labels| &labels.fields)
        .map(|(key, field)| (key.as_str().into(), value(field)))
        .collect();
    default_subset.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Some(Subsets {
        fallback,
        default_subset,
        selectors: each("subset_selectors", &message.subset_selectors, selector)?,
        locality_weight_aware: message.locality_weight_aware,
    }))
}

fn selector(message: &LbSubsetSelector) -> Converted<SubsetSelector> {
    refuse("single_host_per_subset", message.single_host_per_subset)?;
    let sorted = |keys: &[String]| {
        let mut keys = boxed(keys);
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    let (keys, fewer) = (sorted(&message.keys), sorted(&message.fallback_keys_subset));
    if keys.is_empty() {
        return Err(Invalid::missing("keys"));
    }
    let fallback = match enumeration("fallback_policy", message.fallback_policy)? {
        LbSubsetSelectorFallbackPolicy::NotDefined => None,
        LbSubsetSelectorFallbackPolicy::NoFallback => Some(SubsetFallback::None),
        LbSubsetSelectorFallbackPolicy::AnyEndpoint => Some(SubsetFallback::AnyEndpoint),
        LbSubsetSelectorFallbackPolicy::DefaultSubset => Some(SubsetFallback::DefaultSubset),
        LbSubsetSelectorFallbackPolicy::KeysSubset => {
            let proper = !fewer.is_empty() && fewer.len() < keys.len();
            if !proper || !fewer.iter().all(|key| keys.contains(key)) {
                let reason = "must be some, but not all, of `keys`";
                return Err(Invalid::new("fallback_keys_subset", reason));
            }
            Some(SubsetFallback::Keys(fewer))
        }
    };
    Ok(SubsetSelector { keys, fallback })
}
