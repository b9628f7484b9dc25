//! The hash by which consistent hashing chooses an endpoint.

use crate::view::RequestView;
use http::HeaderMap;
use sidecar_model::{
    HeaderKey,
    matcher::RegexRewrite,
    route_action::{HashPolicy, HashSource},
};
use std::{net::IpAddr, time::Duration};
use xxhash_rust::xxh64::xxh64;

/// What the policies gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HashOutcome {
    /// The hash; `None` when no ingredient was found, and the endpoint is chosen by chance.
    pub hash: Option<u64>,
    /// A cookie to set in the response, so that the client comes back to the same endpoint.
    pub cookie: Option<NewCookie>,
}

/// A cookie made here.
#[derive(Debug, PartialEq, Eq)]
pub struct NewCookie {
    /// The value of `set-cookie`.
    pub set_cookie: String,
}

/// Hashes what the policies name. `random` becomes the value of a cookie that has to be made.
#[must_use]
pub fn hash(policies: &[HashPolicy], request: &RequestView<'_>, client: IpAddr, random: u64) -> HashOutcome {
    let mut outcome = HashOutcome::default();
    for policy in policies {
        let found = match &policy.source {
            HashSource::Header { name: HeaderKey::Name(name), rewrite } => {
                values(request.headers, name, rewrite.as_ref())
            }
            HashSource::Header { name, rewrite } => request.header(name).map(|value| match rewrite {
                Some(rewrite) => of(&rewrite.apply(&value)),
                None => of(&value),
            }),
            HashSource::Cookie { name, ttl, path, attributes } => match cookie(request, name) {
                Some(value) => Some(of(value)),
                None => ttl.map(|ttl| {
                    let value = format!("{random:016x}");
                    let hash = of(&value);
                    outcome.cookie.get_or_insert_with(|| NewCookie {
                        set_cookie: set_cookie(name, &value, ttl, path, attributes),
                    });
                    hash
                }),
            },
            HashSource::SourceIp => Some(of(&client.to_string())),
            HashSource::Query(name) => request.query_parameter(name).map(of),
            HashSource::FilterState(_) => None,
        };
        if let Some(found) = found {
            // Envoy's combination: the order of policies matters.
            outcome.hash = Some(outcome.hash.map_or(found, |hash| hash.rotate_left(1) ^ found));
        }
        // It ends the list even when it found nothing itself.
        if policy.terminal && outcome.hash.is_some() {
            break;
        }
    }
    outcome
}

/// All values of a header, in order of their bytes, each hashed with the hash so far as its seed: as Envoy does, so that the order
/// in which they come does not matter.
fn values(headers: &HeaderMap, name: &http::HeaderName, rewrite: Option<&RegexRewrite>) -> Option<u64> {
    let all = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut all: Vec<String> = all
        .map(|value| rewrite.map_or_else(|| value.clone().into_owned(), |rewrite| rewrite.apply(&value)))
        .collect();
    all.sort_unstable();
    (!all.is_empty()).then(|| all.iter().fold(0, |seed, value| xxh64(value.as_bytes(), seed)))
}

fn of(text: &str) -> u64 {
    xxh64(text.as_bytes(), 0)
}

fn cookie<'a>(request: &RequestView<'a>, name: &str) -> Option<&'a str> {
    let all = request.headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"')).filter(|value| !value.is_empty())
    })
}

fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    path: &str,
    attributes: &[(Box<str>, Box<str>)],
) -> String {
    let mut text = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        text += &format!("; Max-Age={}", ttl.as_secs());
    }
    if !path.is_empty() {
        text += &format!("; Path={path}");
    }
    for (key, value) in attributes {
        text += &if value.is_empty() { format!("; {key}") } else { format!("; {key}={value}") };
    }
    text + "; HttpOnly"
}
