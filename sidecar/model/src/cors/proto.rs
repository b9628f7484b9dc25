//! `envoy.extensions.filters.http.cors.v3.CorsPolicy`.

use super::CorsPolicy;
use crate::convert::{At, Converted, each, header_text, refuse};
use crate::matcher::Fraction;
use crate::matcher::proto::{runtime_fraction, string_match};
use policies_xds::cors;

pub(crate) fn cors(message: &cors::CorsPolicy) -> Converted<CorsPolicy> {
    let private = message.allow_private_network_access.is_some_and(|it| it.value);
    refuse("allow_private_network_access", private)?;
    Ok(CorsPolicy {
        allow_origins: each("allow_origin_string_match", &message.allow_origin_string_match, string_match)?,
        allow_methods: header_text("allow_methods", &message.allow_methods)?.into(),
        allow_headers: header_text("allow_headers", &message.allow_headers)?.into(),
        expose_headers: header_text("expose_headers", &message.expose_headers)?.into(),
        max_age: header_text("max_age", &message.max_age)?.into(),
        allow_credentials: message.allow_credentials.map(|it| it.value),
        forward_not_matching_preflights: message.forward_not_matching_preflights.map(|it| it.value),
        enabled: message
            .filter_enabled
            .as_ref()
            .map_or(Ok(Fraction::ALL), runtime_fraction)
            .at("filter_enabled")?,
    })
}
