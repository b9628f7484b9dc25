//! A duration field of an API object; the syntax is [`base_types::duration`]'s.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A duration field of an API object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiDuration(pub Duration);

// === impl ApiDuration ===

impl From<ApiDuration> for Duration {
    fn from(duration: ApiDuration) -> Self {
        duration.0
    }
}

impl<'de> Deserialize<'de> for ApiDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base_types::duration::parse(&text).map(Self).map_err(de::Error::custom)
    }
}
