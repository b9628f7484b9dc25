//! Paths that name no resource: health, version, discovery, OpenAPI, the issuer's keys.

use http::{Method, StatusCode};
use serde_json::json;

use super::Reply;
use crate::{
    context::Context,
    discovery,
    error::{ApiError, ApiResult},
    schema::openapi,
};

/// Checks that `?verbose` lists; each holds as soon as the server answers at all.
const CHECKS: &[&str] =
    &["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles", "poststarthook/bootstrap-controller"];

/// Handles a path outside resources.
///
/// # Errors
/// 404 and 405.
pub(crate) fn handle(ctx: &Context) -> ApiResult<Reply> {
    if !matches!(ctx.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let path = ctx.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", rest @ ..] => health(ctx, parts[0], rest),
        ["version"] => Ok(version(ctx)),
        ["metrics"] => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Ok(Reply::bytes(StatusCode::OK, kind, ctx.api.metrics.text().into()))
        }
        ["api"] => discovery::core_versions(ctx),
        ["apis"] => discovery::groups(ctx),
        ["apis", group] => discovery::group(ctx, group),
        ["api", version] => discovery::resources(ctx, "", version),
        ["apis", group, version] => discovery::resources(ctx, group, version),
        ["openapi", "v3"] => Ok(openapi::index(ctx)),
        ["openapi", "v3", "api", version] => openapi::document(ctx, "", version),
        ["openapi", "v3", "apis", group, version] => openapi::document(ctx, group, version),
        ["openapi", "v2"] => openapi::v2(ctx),
        [".well-known", "openid-configuration"] => Ok(Reply::json(StatusCode::OK, &ctx.api.keys.discovery())),
        ["openid", "v1", "jwks"] => Ok(Reply::json(StatusCode::OK, &ctx.api.keys.jwks())),
        [] => Ok(root()),
        _ => Err(ApiError::page_not_found()),
    }
}

fn root() -> Reply {
    let paths = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    Reply::json(StatusCode::OK, &json!({"paths": paths}))
}

fn health(ctx: &Context, which: &str, rest: &[&str]) -> ApiResult<Reply> {
    match rest {
        [] if ctx.query.all("verbose").next().is_some() => {
            let mut text: String = CHECKS.iter().map(|check| format!("[+]{check} ok\n")).collect();
            text.push_str(which);
            text.push_str(" check passed\n");
            Ok(Reply::text(StatusCode::OK, text))
        }
        [] => Ok(Reply::text(StatusCode::OK, "ok")),
        path if CHECKS.contains(&path.join("/").as_str()) => Ok(Reply::text(StatusCode::OK, "ok")),
        _ => Err(ApiError::page_not_found()),
    }
}

fn version(ctx: &Context) -> Reply {
    let version = &ctx.api.version;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("33"));
    let value = json!({"major": major, "minor": minor, "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        "emulationMajor": major, "emulationMinor": minor, "minCompatibilityMajor": major, "minCompatibilityMinor": minor});
    Reply::json(StatusCode::OK, &value)
}
