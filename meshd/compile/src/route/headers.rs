//! Header operations of rules and destinations.

use policies_api::virtual_service::{HeaderOperations, Headers};
use policies_xds::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};

/// Header changes in Envoy's terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) request_add: Vec<HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
    /// New authority, when `Host` is set.
    pub(crate) authority: Option<String>,
}

// === impl Changes ===

impl Changes {
    pub(crate) fn new(written: Option<&Headers>) -> Self {
        let Some(written) = written else { return Self::default() };
        let mut changes = Self::default();
        if let Some(request) = &written.request {
            changes.authority =
                request.set.iter().find(|(name, _)| is_authority(name)).map(|(_, value)| value.clone());
            (changes.request_add, changes.request_remove) = operations(request);
        }
        if let Some(response) = &written.response {
            (changes.response_add, changes.response_remove) = operations(response);
        }
        changes
    }
}

fn operations(written: &HeaderOperations) -> (Vec<HeaderValueOption>, Vec<String>) {
    let settable = |name: &str| !name.starts_with(':') && !is_authority(name);
    let set =
        written.set.iter().map(|(name, value)| (name, value, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = written.add.iter().map(|(name, value)| (name, value, HeaderAppendAction::AppendIfExistsOrAdd));
    let changed =
        set.chain(add).filter(|(name, _, _)| settable(name)).map(|(name, value, action)| HeaderValueOption {
            header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..Default::default() }),
            append_action: action.into(),
            ..Default::default()
        });
    (changed.collect(), written.remove.iter().filter(|name| settable(name)).cloned().collect())
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}
