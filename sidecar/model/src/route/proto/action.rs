//! What a route does.

use crate::convert::{At, Converted, data_bytes, enumeration, header_text, not_empty, port, refuse, status};
use crate::invalid::Invalid;
use crate::matcher::proto::regex_rewrite;
use crate::route::{Action, DirectResponse, Redirect, RedirectPath};
use crate::route_action::proto::route_action;
use policies_xds::route::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use policies_xds::route::{DirectResponseAction, RedirectAction, route};

pub(super) fn action(message: &route::Action, body_max: usize) -> Converted<Action> {
    Ok(match message {
        route::Action::Route(message) => Action::Forward(Box::new(route_action(message).at("route")?)),
        route::Action::Redirect(message) => Action::Redirect(Box::new(redirect(message).at("redirect")?)),
        route::Action::DirectResponse(message) => {
            Action::DirectResponse(direct_response(message, body_max).at("direct_response")?)
        }
        route::Action::NonForwardingAction(_) => Action::NonForwarding,
        route::Action::FilterAction(_) => return Err(Invalid::unsupported("filter_action", "this action")),
    })
}

fn redirect(message: &RedirectAction) -> Converted<Redirect> {
    let status = match enumeration("response_code", message.response_code)? {
        RedirectResponseCode::MovedPermanently => http::StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => http::StatusCode::FOUND,
        RedirectResponseCode::SeeOther => http::StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => http::StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => http::StatusCode::PERMANENT_REDIRECT,
    };
    let scheme = match &message.scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            Some(header_text("scheme_redirect", not_empty("scheme_redirect", scheme)?)?.into())
        }
    };
    let path = match &message.path_rewrite_specifier {
        None => None,
        // Empty, it says nothing.
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => None,
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if prefix.is_empty() => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            Some(RedirectPath::Path(header_text("path_redirect", path)?.into()))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(RedirectPath::Prefix(header_text("prefix_rewrite", prefix)?.into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(message)) => {
            Some(RedirectPath::Regex(regex_rewrite(message).at("regex_rewrite")?))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            return Err(Invalid::unsupported("path_rewrite", "a formatted path"));
        }
    };
    let host = header_text("host_redirect", &message.host_redirect)?;
    Ok(Redirect {
        status,
        scheme,
        host: (!host.is_empty()).then(|| host.into()),
        port: match message.port_redirect {
            0 => None,
            value => Some(port("port_redirect", value)?),
        },
        path,
        strip_query: message.strip_query,
    })
}

fn direct_response(message: &DirectResponseAction, body_max: usize) -> Converted<DirectResponse> {
    refuse("body_format", message.body_format.is_some())?;
    let body = match &message.body {
        Some(source) => data_bytes("body", source)?,
        None => &[],
    };
    if body.len() > body_max {
        return Err(Invalid::new("body", format!("must not have more than {body_max} bytes")));
    }
    Ok(DirectResponse { status: status("status", message.status)?, body: body.into() })
}
