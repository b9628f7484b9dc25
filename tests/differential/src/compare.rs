//! What differs between two answers, and what may.

use crate::client::{Answer, Call};
use std::collections::BTreeMap;

/// Response headers whose values are another at every answer, or follow from the body, which is compared by itself; that they are
/// there is still compared.
const VALUE_VARIES: [&str; 3] = ["date", "x-envoy-upstream-service-time", "content-length"];

/// A difference that is not one of ours, and why.
struct Allowed {
    applies: fn(&Call, &Answer, &Answer, &str) -> bool,
    #[expect(dead_code, reason = "it is written for people")]
    reason: &'static str,
}

/// Everything that may differ.
const ALLOWED: &[Allowed] = &[
    Allowed {
        applies: |_, envoy, _, line| {
            line.starts_with("header connection: Envoy Some([\"close\"]), ours None") && is_local(envoy)
        },
        reason: "Envoy closes a connection of HTTP/1.1 when it answers before it has read the request's end; we read the rest, \
                 within bounds, and keep the connection",
    },
    Allowed {
        applies: |call, _, _, line| {
            call.method == "HEAD" && line.starts_with("header transfer-encoding: Envoy Some")
        },
        reason: "to HEAD, Envoy announces a body in chunks when it does not know the length; RFC 9110 lets both be left out",
    },
    Allowed {
        applies: |_, envoy, _, line| {
            matches!(envoy.status, 204 | 304) && line.starts_with("header content-length: Envoy Some")
        },
        reason: "304 may say how long the body would be, and need not (RFC 9110, 15.4.5); 204 must not (8.6), but Envoy does",
    },
    Allowed {
        applies: |call, envoy, _, line| {
            let refused = matches!(envoy.status, 307 | 400) || line.contains("ours None");
            let named = call.headers.iter().any(|(name, _)| name == "x-forwarded-proto");
            refused && named && call.path.contains('%') && line.starts_with("header x-")
        },
        reason: "to the answer for a path that it does not take, Envoy adds the headers of the route only when the client has sent \
                 x-forwarded-proto",
    },
    Allowed {
        applies: |call, _, _, line| {
            call.method == "HEAD" && line.starts_with("header grpc-message: Envoy None")
        },
        reason: "gRPC has no HEAD",
    },
    Allowed {
        applies: |call, _, _, _| {
            call.path
                .split('?')
                .next()
                .is_some_and(|path| path.len() > 1 && path.bytes().all(|it| it == b'/'))
        },
        reason: "where slashes are merged Envoy leaves two of a path that has nothing else; we leave one",
    },
];

/// Whether an answer was made by the proxy, not by a backend.
fn is_local(answer: &Answer) -> bool {
    !answer.body.starts_with("endpoint ")
}

/// One line for each difference; empty when the answers are the same.
#[must_use]
pub fn differences(call: &Call, envoy: &Answer, ours: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if envoy.status != ours.status {
        found.push(format!("status: Envoy {}, ours {}", envoy.status, ours.status));
    }
    let (theirs, own) = (by_name(&envoy.headers), by_name(&ours.headers));
    for name in theirs.keys().chain(own.keys().filter(|name| !theirs.contains_key(*name))) {
        let (their, own) = (theirs.get(name), own.get(name));
        let same = if VALUE_VARIES.contains(&name.as_str()) {
            their.is_some() == own.is_some()
        } else {
            their == own
        };
        if !same {
            found.push(format!("header {name}: Envoy {their:?}, ours {own:?}"));
        }
    }
    let (their, own) = (steady(&envoy.body), steady(&ours.body));
    if their != own {
        let missing =
            their.iter().filter(|line| !own.contains(line)).map(|line| format!("body: Envoy only `{line}`"));
        let new =
            own.iter().filter(|line| !their.contains(line)).map(|line| format!("body: ours only `{line}`"));
        let before = found.len();
        found.extend(missing.chain(new));
        if found.len() == before {
            found.push("body: the same lines in another order".to_owned());
        }
    }
    found.retain(|line| !ALLOWED.iter().any(|it| (it.applies)(call, envoy, ours, line)));
    found
}

/// The lines of a body. The time that an attempt after others still has is another in each run: it is rounded up to a second.
fn steady(body: &str) -> Vec<String> {
    let line = |line: &str| match line.strip_prefix("x-envoy-expected-rq-timeout-ms: ").map(str::parse::<u64>)
    {
        Some(Ok(time)) => format!("x-envoy-expected-rq-timeout-ms: {} s", time.div_ceil(1000)),
        _ => line.to_owned(),
    };
    body.lines().map(line).collect()
}

fn by_name(headers: &[(String, String)]) -> BTreeMap<String, Vec<&str>> {
    let mut all: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in headers {
        all.entry(name.clone()).or_default().push(value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Answer { status, headers, body: body.to_owned() }
    }

    #[test]
    fn every_part_is_compared() {
        let call = Call::get("a.test", "/");
        let one = answer(200, &[("date", "1"), ("x", "1"), ("x", "2")], "a\nb\n");
        assert!(
            differences(&call, &one, &answer(200, &[("x", "1"), ("date", "2"), ("x", "2")], "a\nb\n"))
                .is_empty()
        );
        for other in [
            answer(404, &[("date", "1"), ("x", "1"), ("x", "2")], "a\nb\n"),
            answer(200, &[("x", "1"), ("x", "2")], "a\nb\n"),
            answer(200, &[("date", "1"), ("x", "2"), ("x", "1")], "a\nb\n"),
            answer(200, &[("date", "1"), ("x", "1"), ("x", "2"), ("y", "")], "a\nb\n"),
            answer(200, &[("date", "1"), ("x", "1"), ("x", "2")], "b\na\n"),
            answer(200, &[("date", "1"), ("x", "1"), ("x", "2")], "a\nc\n"),
        ] {
            assert!(!differences(&call, &one, &other).is_empty(), "{other:?}");
            assert!(!differences(&call, &other, &one).is_empty(), "{other:?}");
        }
    }
}
