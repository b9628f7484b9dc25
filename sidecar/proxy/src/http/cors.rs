//! Requests from other origins (Fetch standard, "CORS protocol").

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use sidecar_http::Body;
use sidecar_model::CorsPolicy;

use super::reply;

/// What a policy says about a request.
pub(super) enum Verdict {
    /// Nothing: the request is forwarded as it is.
    Pass,
    /// The request is forwarded; its response gets these headers.
    Allow(HeaderMap),
    /// A preflight that is answered here.
    Answer(Response<Body>),
}

/// Judges a request. `random` decides whether the policy is applied at all.
pub(super) fn judge(policy: &CorsPolicy, method: &Method, headers: &HeaderMap, random: u64) -> Verdict {
    let origin = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty());
    let Some(origin) = origin else { return Verdict::Pass };
    if !policy.enabled.hit(random) {
        return Verdict::Pass;
    }
    // An exact `*` allows every origin.
    let fits = |text: &str| policy.allow_origins.iter().any(|one| one.is_match("*") || one.is_match(text));
    let allowed = origin.to_str().is_ok_and(fits);
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|method| !method.is_empty());
    let asked = asked.filter(|_| *method == Method::OPTIONS);
    let preflight = asked.is_some();
    let mut extra = HeaderMap::new();
    if !allowed && (!preflight || policy.forward_not_matching_preflights.unwrap_or(true)) {
        return Verdict::Pass;
    }
    if allowed {
        extra.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    if policy.allow_credentials == Some(true) {
        extra.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if allowed {
        put(&mut extra, header::ACCESS_CONTROL_EXPOSE_HEADERS, &policy.expose_headers);
    }
    if !preflight {
        return Verdict::Allow(extra);
    }
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    for (name, allowed, asked) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods, asked),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers, wanted),
    ] {
        match (&**allowed, asked) {
            ("*", asked) => drop(extra.insert(name, asked.cloned().unwrap_or(HeaderValue::from_static("")))),
            (text, _) => put(&mut extra, name, text),
        }
    }
    put(&mut extra, header::ACCESS_CONTROL_MAX_AGE, &policy.max_age);
    let mut response = reply::text(StatusCode::OK, "");
    *response.headers_mut() = extra;
    Verdict::Answer(response)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use sidecar_model::{Fraction, StringMatch};

    use super::*;

    fn policy(forward: bool) -> CorsPolicy {
        CorsPolicy {
            allow_origins: vec![StringMatch::exact("https://good.test")],
            allow_methods: "GET,POST".into(),
            allow_headers: "x-a".into(),
            expose_headers: "x-b".into(),
            max_age: "600".into(),
            allow_credentials: Some(true),
            forward_not_matching_preflights: Some(forward),
            enabled: Fraction::ALL,
        }
    }

    fn request(origin: &'static str, preflight: bool) -> (Method, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        if preflight {
            headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        }
        (if preflight { Method::OPTIONS } else { Method::GET }, headers)
    }

    #[test]
    fn origins_are_judged() {
        let (method, headers) = request("https://good.test", true);
        let Verdict::Answer(answer) = judge(&policy(true), &method, &headers, 0) else {
            panic!("not answered")
        };
        assert_eq!(answer.headers()["access-control-allow-methods"], "GET,POST");
        assert_eq!(answer.headers()["access-control-max-age"], "600");
        let (method, headers) = request("https://good.test", false);
        let Verdict::Allow(extra) = judge(&policy(true), &method, &headers, 0) else { panic!("not allowed") };
        assert_eq!(extra["access-control-allow-origin"], "https://good.test");
        assert_eq!(extra["access-control-expose-headers"], "x-b");
        let (method, headers) = request("https://bad.test", true);
        assert!(matches!(judge(&policy(true), &method, &headers, 0), Verdict::Pass));
        let Verdict::Answer(answer) = judge(&policy(false), &method, &headers, 0) else {
            panic!("forwarded")
        };
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
        assert!(matches!(judge(&policy(true), &Method::GET, &HeaderMap::new(), 0), Verdict::Pass));
    }
}
