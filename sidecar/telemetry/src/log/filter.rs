//! Which entries are logged.

use std::borrow::Cow;

use http::HeaderName;
use sidecar_model::HeaderKey;
use sidecar_model::access_log::LogFilter;

use super::cel;
use super::entry::Entry;

/// Whether the filter lets the entry through. `random` is spread over all of `u64`.
pub(crate) fn passes(filter: &LogFilter, entry: &Entry<'_>, random: u64) -> bool {
    match filter {
        LogFilter::Status(comparison) => comparison.holds(u32::from(entry.code)),
        LogFilter::Duration(comparison) => {
            comparison.holds(u32::try_from(entry.duration.as_millis()).unwrap_or(u32::MAX))
        }
        LogFilter::Header(matcher) => matcher.is_match(header(entry, &matcher.key).as_deref()),
        LogFilter::ResponseFlag(wanted) if wanted.is_empty() => !entry.flags.is_empty(),
        LogFilter::ResponseFlag(wanted) => {
            entry.flags.iter().any(|flag| wanted.iter().any(|want| **want == *flag.short()))
        }
        LogFilter::GrpcStatus { codes, exclude } => {
            entry.grpc_status.is_some_and(|status| codes.contains(&u32::from(status))) != *exclude
        }
        LogFilter::Random(fraction) => fraction.hit(random),
        LogFilter::And(all) => all.iter().all(|one| passes(one, entry, random)),
        LogFilter::Or(any) => any.iter().any(|one| passes(one, entry, random)),
        LogFilter::Expression(expression) => cel::holds(expression, entry),
        LogFilter::NotHealthCheck => true,
    }
}

fn header<'a>(entry: &'a Entry<'_>, key: &HeaderKey) -> Option<Cow<'a, str>> {
    match key {
        HeaderKey::Method => Some(entry.method.into()),
        HeaderKey::Authority => Some(entry.authority.into()),
        HeaderKey::Path => Some(entry.path.into()),
        HeaderKey::Scheme => Some(entry.scheme.into()),
        HeaderKey::Name(name) => {
            entry.request.find(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
        }
    }
}

/// Headers of requests and of responses that the filter looks at.
pub(crate) fn headers(filter: &LogFilter, names: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
    match filter {
        LogFilter::Header(matcher) => {
            if let HeaderKey::Name(name) = &matcher.key {
                names.push(name.clone());
            }
        }
        LogFilter::And(filters) | LogFilter::Or(filters) => {
            filters.iter().for_each(|one| headers(one, names, response))
        }
        LogFilter::Expression(expression) => cel::headers(expression, names, response),
        _ => {}
    }
}
