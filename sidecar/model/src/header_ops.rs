//! Headers added to and removed from requests and responses.

pub(crate) mod proto;

use http::HeaderName;
use serde::Serialize;

/// What happens when the header is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderAppend {
    /// Added beside what is there.
    AppendOrAdd,
    /// Added only when there is none.
    AddIfAbsent,
    /// Replaces what is there, or is added.
    OverwriteOrAdd,
    /// Replaces what is there; nothing when there is none.
    OverwriteIfExists,
}

/// One header to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderAdd {
    /// Its name.
    #[serde(serialize_with = "crate::dump::display")]
    pub name: HeaderName,
    /// Its value, in which Envoy's command operators (`%REQ(...)%` and others) stand for values of the request.
    /// It holds no control character.
    pub value: Box<str>,
    /// What happens when there is one.
    pub append: HeaderAppend,
    /// It is added even when its value comes out empty.
    pub keep_empty: bool,
}

/// Changes to the headers of a message: removals first, then additions in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderOps {
    /// What is added.
    pub add: Vec<HeaderAdd>,
    /// What is removed.
    #[serde(serialize_with = "crate::dump::display_list")]
    pub remove: Vec<HeaderName>,
}

// === impl HeaderOps ===

impl HeaderOps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}
