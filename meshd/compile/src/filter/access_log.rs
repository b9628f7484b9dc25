//! The access log: Istio's text format, to the file that the mesh or a `Telemetry` object says.

use meshd_model::ProxyKind;
use meshd_model::select::security;
use policies_xds::access_log::{AccessLog, access_log};
use policies_xds::any;
use policies_xds::core::{DataSource, SubstitutionFormatString, data_source, substitution_format_string};
use policies_xds::file_access_log::{FileAccessLog, file_access_log};

use crate::view::View;

/// Istio's default format.
const FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% ",
    "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% ",
    "%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ",
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);
/// Where the provider `envoy` writes.
const STANDARD_OUTPUT: &str = "/dev/stdout";

/// Which end of a request a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The logs of one side of a proxy.
pub(crate) fn logs(view: &View<'_>, side: Side) -> Vec<AccessLog> {
    let Some(path) = file(view, side) else { return Vec::new() };
    let format = if view.mesh.access_log_format.is_empty() { FORMAT } else { &view.mesh.access_log_format };
    let source = DataSource {
        specifier: Some(data_source::Specifier::InlineString(format.to_owned())),
        ..Default::default()
    };
    let format = SubstitutionFormatString {
        format: Some(substitution_format_string::Format::TextFormatSource(source)),
        ..Default::default()
    };
    let log =
        FileAccessLog { path, access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)) };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&log))),
        ..Default::default()
    }]
}

/// The mesh's file unless `Telemetry` objects say otherwise; the narrowest that speaks of this side decides.
fn file(view: &View<'_>, side: Side) -> Option<String> {
    let of_mesh = Some(view.mesh.access_log_file.clone()).filter(|it| !it.is_empty());
    let side = if view.proxy.kind == ProxyKind::Router { Side::Client } else { side };
    let telemetries = security::telemetries(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    let concerns = |mode: &str| match side {
        Side::Client => mode != "SERVER",
        Side::Server => mode != "CLIENT",
    };
    let entry = telemetries.iter().rev().find_map(|it| {
        it.spec
            .access_logging
            .iter()
            .rev()
            .find(|it| concerns(it.selector.as_ref().map_or("", |it| &it.mode)))
    });
    match entry {
        None => of_mesh,
        Some(entry) if entry.disabled == Some(true) => None,
        Some(_) => of_mesh.or_else(|| Some(STANDARD_OUTPUT.to_owned())),
    }
}
