//! Rules of the HTTP routes of a `VirtualService`.

use super::texts::{base64, grpc_status, is_header_name, regex_problem};
use super::{Problem, field};
use crate::matching::StringMatch;
use crate::virtual_service::{Fault, HeaderOperations, Headers, HttpMatch, HttpRoute, Redirect, Retries};

/// Istio's bounds on the body of a direct response.
const BODY_BYTES_MAX: usize = 1 << 20;
const BODY_BYTES_ADVISED: usize = 100 << 10;

pub(super) fn check(rule: &HttpRoute, path: &str, is_delegate: bool, problems: &mut Vec<Problem>) {
    actions(rule, path, is_delegate, problems);
    for (index, matched) in rule.matches.iter().enumerate() {
        http_match(matched, &format!("{path}.match[{index}]"), is_delegate, problems);
    }
    for (index, target) in rule.route.iter().enumerate() {
        let inner = format!("{path}.route[{index}]");
        field::destination(&target.destination, &format!("{inner}.destination"), problems);
        headers(target.headers.as_ref(), &inner, problems);
    }
    field::weights(rule.route.iter().map(|it| it.weight), &format!("{path}.route"), problems);
    headers(rule.headers.as_ref(), path, problems);
    field::duration(rule.timeout.filter(|it| !it.0.is_zero()), &format!("{path}.timeout"), problems);
    if let Some(it) = &rule.redirect {
        redirect(it, &format!("{path}.redirect"), problems);
    }
    if let Some(it) = &rule.retries {
        retries(it, &format!("{path}.retries"), problems);
    }
    if let Some(it) = &rule.fault {
        fault(it, &format!("{path}.fault"), problems);
    }
    rewrite(rule, path, problems);
    mirrors(rule, path, problems);
    response(rule, path, problems);
    if let Some(cors) = &rule.cors_policy {
        for (index, origin) in cors.allow_origins.iter().enumerate() {
            field::string_match(origin, &format!("{path}.corsPolicy.allowOrigins[{index}]"), problems);
        }
        field::duration(cors.max_age, &format!("{path}.corsPolicy.maxAge"), problems);
    }
}

/// A rule does exactly one thing.
fn actions(rule: &HttpRoute, path: &str, is_delegate: bool, problems: &mut Vec<Problem>) {
    let error = |reason: &str, fix: &str, problems: &mut Vec<Problem>| {
        problems.push(Problem::error(path, reason, fix))
    };
    let routes = !rule.route.is_empty();
    if let Some(delegate) = &rule.delegate {
        if is_delegate {
            error(
                "delegate HTTP route cannot contain delegate",
                "delegate from the root object only",
                problems,
            );
        }
        if routes || rule.redirect.is_some() || rule.direct_response.is_some() {
            error(
                "root HTTP route can not set route or redirect or direct response with delegate",
                "keep the delegate alone",
                problems,
            );
        }
        if delegate.name.is_empty() {
            problems.push(Problem::error(
                format!("{path}.delegate.name"),
                "is missing",
                "name the delegate object",
            ));
        }
        return;
    }
    match (routes, rule.redirect.is_some(), rule.direct_response.is_some()) {
        (true, true, _) => {
            error("HTTP route cannot contain both route and redirect", "keep one of them", problems)
        }
        (true, _, true) => {
            error("HTTP route cannot contain both route and direct_response", "keep one of them", problems)
        }
        (_, true, true) => {
            error("HTTP route cannot contain both redirect and direct_response", "keep one of them", problems)
        }
        (false, false, false) => {
            error(
                "HTTP route, redirect or direct_response is required",
                "add a route with a destination",
                problems,
            );
        }
        _ => {}
    }
    if rule.redirect.is_some() && rule.fault.is_some() {
        error("HTTP route cannot contain both fault and redirect", "keep one of them", problems);
    }
    if rule.redirect.is_some() && rule.rewrite.is_some() {
        error("HTTP route rule cannot contain both rewrite and redirect", "keep one of them", problems);
    }
}

fn http_match(matched: &HttpMatch, path: &str, is_delegate: bool, problems: &mut Vec<Problem>) {
    let fields = [
        ("uri", &matched.uri),
        ("scheme", &matched.scheme),
        ("method", &matched.method),
        ("authority", &matched.authority),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        let inner = format!("{path}.{name}");
        field::string_match(value, &inner, problems);
        if matches!(value, StringMatch::Prefix(prefix) if prefix.is_empty()) && name == "uri" {
            problems.push(Problem::error(
                inner,
                "prefix string match should not be empty",
                "use \"/\" to match every path",
            ));
        }
    }
    for (name, map) in [("headers", &matched.headers), ("withoutHeaders", &matched.without_headers)] {
        for (key, value) in map {
            let inner = format!("{path}.{name}.{key}");
            if !key.starts_with('@') && !is_header_name(key) {
                problems.push(Problem::error(
                    &inner,
                    format!("header name \"{key}\" is invalid"),
                    "use a header's name",
                ));
            } else if key.chars().any(char::is_uppercase) && !key.starts_with('@') {
                let fix = format!("write {}", key.to_ascii_lowercase());
                problems.push(Problem::warning(
                    &inner,
                    format!("header name \"{key}\" is not in lower case"),
                    fix,
                ));
            }
            field::string_match(value, &inner, problems);
        }
    }
    for (key, value) in &matched.query_params {
        field::string_match(value, &format!("{path}.queryParams.{key}"), problems);
    }
    if let Some(port) = matched.port {
        field::port(port, &format!("{path}.port"), problems);
    }
    if is_delegate && (!matched.gateways.is_empty() || !matched.source_labels.is_empty()) {
        let reason = "delegate HTTP match must not have gateways or sourceLabels";
        problems.push(Problem::error(path, reason, "put them into the root object"));
    }
}

fn headers(written: Option<&Headers>, path: &str, problems: &mut Vec<Problem>) {
    let Some(written) = written else { return };
    for (side, operations) in [("request", &written.request), ("response", &written.response)] {
        let Some(HeaderOperations { set, add, remove }) = operations else { continue };
        for (operation, names) in [
            ("set", set.keys().collect::<Vec<_>>()),
            ("add", add.keys().collect()),
            ("remove", remove.iter().collect()),
        ] {
            for (name, _) in set.iter().chain(add).filter(|(_, value)| value.chars().any(char::is_control)) {
                let inner = format!("{path}.headers.{side}.{operation}");
                let reason = format!("value of header \"{name}\" has control characters");
                problems.push(Problem::error(inner, reason, "write the value on one line"));
            }
            for name in names.into_iter().filter(|it| !is_header_name(it)) {
                let inner = format!("{path}.headers.{side}.{operation}");
                problems.push(Problem::error(
                    inner,
                    format!("header name \"{name}\" is invalid"),
                    "use a header's name",
                ));
            }
        }
    }
}

fn redirect(written: &Redirect, path: &str, problems: &mut Vec<Problem>) {
    let says_nothing = written.uri.is_empty()
        && written.authority.is_empty()
        && written.scheme.is_empty()
        && written.prefix_rewrite.is_empty()
        && written.port.is_none()
        && written.derive_port.is_empty();
    if says_nothing {
        let reason = "redirect must specify URI, authority, scheme, or port";
        problems.push(Problem::error(path, reason, "add at least one of them"));
    }
    if let Some(code) = written.redirect_code
        && !matches!(code, 0 | 301 | 302 | 303 | 307 | 308)
    {
        let reason = format!("redirect code {code} is not supported");
        problems.push(Problem::error(
            format!("{path}.redirectCode"),
            reason,
            "use 301, 302, 303, 307 or 308",
        ));
    }
    if !matches!(written.scheme.as_str(), "" | "http" | "https") {
        let reason = format!("scheme \"{}\" is not supported", written.scheme);
        problems.push(Problem::error(format!("{path}.scheme"), reason, "use http or https"));
    }
    if let Some(port) = written.port {
        field::port(port, &format!("{path}.port"), problems);
    }
}

fn retries(written: &Retries, path: &str, problems: &mut Vec<Problem>) {
    const CONDITIONS: [&str; 18] = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
        "gateway-timeout",
        "unauthenticated",
    ];
    if written.attempts < 0 {
        problems.push(Problem::error(
            format!("{path}.attempts"),
            "attempts cannot be negative",
            "use 0 to turn retries off",
        ));
    }
    if written.attempts == 0 && (written.per_try_timeout.is_some() || !written.retry_on.is_empty()) {
        let reason = "http retry policy configured when attempts are set to 0 (disabled)";
        problems.push(Problem::error(path, reason, "remove the other fields, or use 1 or more attempts"));
    }
    field::duration(
        written.per_try_timeout.filter(|it| !it.0.is_zero()),
        &format!("{path}.perTryTimeout"),
        problems,
    );
    field::duration(written.backoff, &format!("{path}.backoff"), problems);
    for condition in written.retry_on.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let is_code = condition.parse::<u32>().is_ok_and(|it| (100..600).contains(&it));
        if !is_code && !CONDITIONS.contains(&condition) {
            let fix = crate::schema::nearest(condition, CONDITIONS.into_iter()).map_or_else(
                || "use conditions such as 5xx, connect-failure or a status code".to_owned(),
                |it| format!("did you mean {it}?"),
            );
            problems.push(Problem::error(
                format!("{path}.retryOn"),
                format!("{condition} is not a valid retryOn policy"),
                fix,
            ));
        }
    }
}

fn fault(written: &Fault, path: &str, problems: &mut Vec<Problem>) {
    if written.delay.is_none() && written.abort.is_none() {
        problems.push(Problem::error(
            path,
            "HTTP fault injection must have an abort and/or a delay",
            "add one",
        ));
    }
    if let Some(delay) = &written.delay {
        let path = format!("{path}.delay");
        if delay.exponential_delay.is_some() {
            problems.push(Problem::error(
                format!("{path}.exponentialDelay"),
                "exponentialDelay not supported yet",
                "use fixedDelay",
            ));
        } else if delay.fixed_delay.is_none() {
            problems.push(Problem::error(
                &path,
                "fault delay must have a fixedDelay",
                "add fixedDelay, such as 5s",
            ));
        }
        field::duration(delay.fixed_delay, &format!("{path}.fixedDelay"), problems);
        if let Some(share) = delay.percentage {
            field::percent(share.value, &format!("{path}.percentage.value"), problems);
        }
    }
    if let Some(abort) = &written.abort {
        let path = format!("{path}.abort");
        match (abort.http_status, &abort.grpc_status, &abort.http2_error) {
            (Some(status), _, _) if !(200..600).contains(&status) => {
                let reason = format!("HTTP status {status} is not in range 200-599");
                problems.push(Problem::error(
                    format!("{path}.httpStatus"),
                    reason,
                    "use a status from 200 to 599",
                ));
            }
            (None, Some(name), _) if grpc_status(name).is_none() => {
                let reason = format!("gRPC status \"{name}\" is not supported");
                problems.push(Problem::error(
                    format!("{path}.grpcStatus"),
                    reason,
                    "use a name such as UNAVAILABLE",
                ));
            }
            (None, None, Some(_)) => {
                problems.push(Problem::error(
                    format!("{path}.http2Error"),
                    "HTTP/2 abort fault injection not supported yet",
                    "use httpStatus",
                ));
            }
            (None, None, None) => {
                problems.push(Problem::error(
                    &path,
                    "fault abort must have an httpStatus or a grpcStatus",
                    "add one",
                ));
            }
            _ => {}
        }
        if let Some(share) = abort.percentage {
            field::percent(share.value, &format!("{path}.percentage.value"), problems);
        }
    }
}

fn rewrite(rule: &HttpRoute, path: &str, problems: &mut Vec<Problem>) {
    let Some(written) = &rule.rewrite else { return };
    let path = format!("{path}.rewrite");
    if written.uri.is_empty() && written.authority.is_empty() && written.uri_regex_rewrite.is_none() {
        problems.push(Problem::error(
            &path,
            "rewrite must specify at least one of URI, authority, or uriRegexRewrite",
            "add one",
        ));
    }
    if let Some(by_regex) = &written.uri_regex_rewrite {
        if !written.uri.is_empty() {
            problems.push(Problem::error(
                &path,
                "rewrite may only contain one of URI or uriRegexRewrite",
                "keep one of them",
            ));
        }
        if let Some(reason) = regex_problem(&by_regex.pattern) {
            problems.push(Problem::error(format!("{path}.uriRegexRewrite.match"), reason, "use RE2 syntax"));
        }
    }
}

fn mirrors(rule: &HttpRoute, path: &str, problems: &mut Vec<Problem>) {
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        problems.push(Problem::error(
            path,
            "HTTP route cannot contain both mirror and mirrors",
            "keep mirrors",
        ));
    }
    if let Some(destination) = &rule.mirror {
        field::destination(destination, &format!("{path}.mirror"), problems);
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let inner = format!("{path}.mirrors[{index}]");
        field::destination(&mirror.destination, &format!("{inner}.destination"), problems);
        if let Some(share) = mirror.percentage {
            field::percent(share.value, &format!("{inner}.percentage.value"), problems);
        }
    }
    if let Some(share) = rule.mirror_percentage {
        field::percent(share.value, &format!("{path}.mirrorPercentage.value"), problems);
    }
    if let Some(share) = rule.mirror_percent {
        field::percent(f64::from(share), &format!("{path}.mirrorPercent"), problems);
    }
}

fn response(rule: &HttpRoute, path: &str, problems: &mut Vec<Problem>) {
    let Some(written) = &rule.direct_response else { return };
    let path = format!("{path}.directResponse");
    if !(200..600).contains(&written.status) {
        let reason = format!("HTTP status {} is not in range 200-599", written.status);
        problems.push(Problem::error(format!("{path}.status"), reason, "use a status from 200 to 599"));
    }
    let bytes = match written.body.as_ref().map(|it| (&it.string, &it.bytes)) {
        Some((Some(text), _)) => text.len(),
        Some((None, Some(encoded))) => match base64(encoded) {
            Some(bytes) => bytes.len(),
            None => {
                problems.push(Problem::error(
                    format!("{path}.body.bytes"),
                    "is not base64",
                    "encode the body as base64",
                ));
                0
            }
        },
        _ => 0,
    };
    if bytes > BODY_BYTES_MAX {
        let reason = "direct response body must not be larger than 1 MB";
        problems.push(Problem::error(format!("{path}.body"), reason, "serve it from a service"));
    } else if bytes > BODY_BYTES_ADVISED {
        let reason = "large direct responses may impact control plane performance";
        problems.push(Problem::warning(format!("{path}.body"), reason, "keep it below 100 KB"));
    }
}

/// Rules behind one that takes everything never match.
pub(super) fn shadowed(rules: &[HttpRoute], problems: &mut Vec<Problem>) {
    let takes_all = |rule: &HttpRoute| {
        rule.matches.is_empty()
            || rule.matches.iter().any(|it| {
                let bare =
                    HttpMatch { uri: None, name: String::new(), stat_prefix: String::new(), ..it.clone() };
                let any_path = matches!(&it.uri, None | Some(StringMatch::Any))
                    || matches!(&it.uri, Some(StringMatch::Prefix(prefix)) if prefix == "/");
                any_path && bare == HttpMatch::default()
            })
    };
    let Some(first) = rules.iter().position(takes_all) else { return };
    for index in first + 1..rules.len() {
        let reason = format!("rule is never used: rule {} before it matches every request", first + 1);
        let fix = "move the rule that matches everything to the end";
        problems.push(Problem::warning(format!("spec.http[{index}]"), reason, fix).code("IST0130"));
    }
}
