//! The access log: in Istio's formats, to the file or the providers that the mesh or `Telemetry` objects say.

use meshd_model::ProxyKind;
use meshd_model::provider::{LogFormat, ProviderKind};
use meshd_model::select::security;
use policies_api::telemetry::{AccessLogging, ModeSelector};
use policies_xds::access_log::access_log_filter::FilterSpecifier;
use policies_xds::access_log::{AccessLog, AccessLogFilter, ExtensionFilter, access_log, extension_filter};
use policies_xds::access_log_cel::ExpressionFilter;
use policies_xds::any;
use policies_xds::core::{DataSource, SubstitutionFormatString, data_source, substitution_format_string};
use policies_xds::file_access_log::{FileAccessLog, file_access_log};
use policies_xds::protobuf::{Any, Struct, Value, value};

use crate::view::View;

/// Istio's default text.
const FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% ",
    "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% ",
    "%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ",
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);
/// The same as fields of JSON, by Istio's names.
const JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];
/// Where the provider `envoy` writes.
const STANDARD_OUTPUT: &str = "/dev/stdout";
/// The provider that is there without being named in the mesh's configuration.
const ENVOY: &str = "envoy";

/// Which end of a request a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    /// Whether an entry of a `Telemetry` object speaks of this side.
    pub(crate) fn is_meant_by(self, selector: Option<&ModeSelector>) -> bool {
        match self {
            Self::Client => selector.is_none_or(|it| it.mode != "SERVER"),
            Self::Server => selector.is_none_or(|it| it.mode != "CLIENT"),
        }
    }
}

/// What is logged of one side: the providers by name, and which requests.
struct Wanted<'a> {
    providers: Vec<&'a str>,
    expression: &'a str,
}

/// The logs of one side of a proxy.
pub(crate) fn logs(view: &View<'_>, side: Side) -> Vec<AccessLog> {
    let of_mesh = || Some(file_log(&view.mesh.access_log_file, mesh_format(view), false));
    let Some(wanted) = wanted(view, side) else {
        let is_on = !view.mesh.access_log_file.is_empty();
        return of_mesh().filter(|_| is_on).into_iter().collect();
    };
    let filter = filter(wanted.expression);
    let log = |name: &&str| match view.mesh.provider(name).map(|it| &it.kind) {
        None if **name == *ENVOY && !view.mesh.access_log_file.is_empty() => of_mesh(),
        None if **name == *ENVOY => Some(file_log(STANDARD_OUTPUT, mesh_format(view), false)),
        Some(ProviderKind::FileAccessLog { path, format: written, omit_empty }) => {
            Some(file_log(path, format(written), *omit_empty))
        }
        _ => None,
    };
    let logs = wanted.providers.iter().filter_map(log);
    logs.map(|log| AccessLog { filter: filter.clone(), ..log }).collect()
}

/// None where neither an object nor `defaultProviders` says anything: then the mesh's file counts.
fn wanted<'a>(view: &View<'a>, side: Side) -> Option<Wanted<'a>> {
    let side = if view.proxy.kind == ProxyKind::Router { Side::Client } else { side };
    let telemetries = security::telemetries(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    let defaults: Vec<&str> = view.mesh.default_access_logging.iter().map(String::as_str).collect();
    // The narrowest object that speaks of this side decides, by its last entry that does.
    let entry: Option<&AccessLogging> = telemetries
        .iter()
        .rev()
        .find_map(|it| it.spec.access_logging.iter().rev().find(|it| side.is_meant_by(it.selector.as_ref())));
    let Some(entry) = entry else {
        return (!defaults.is_empty()).then_some(Wanted { providers: defaults, expression: "" });
    };
    let named = entry.providers.iter().map(|it| it.name.as_str()).collect();
    let providers = match (entry.disabled, entry.providers.is_empty(), defaults.is_empty()) {
        (Some(true), ..) => Vec::new(),
        (_, false, _) => named,
        (_, true, false) => defaults,
        (_, true, true) => vec![ENVOY],
    };
    Some(Wanted { providers, expression: entry.filter.as_ref().map_or("", |it| &it.expression) })
}

fn filter(expression: &str) -> Option<AccessLogFilter> {
    if expression.is_empty() {
        return None;
    }
    let config = ExpressionFilter { expression: expression.to_owned(), ..Default::default() };
    let extension = ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(any(&config))),
    };
    Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::ExtensionFilter(extension)) })
}

fn mesh_format(view: &View<'_>) -> substitution_format_string::Format {
    let written = &view.mesh.access_log_format;
    if !view.mesh.access_log_json {
        return text(if written.is_empty() { FORMAT } else { written });
    }
    match serde_json::from_str(written) {
        Ok(serde_json::Value::Object(fields)) => {
            json(fields.iter().map(|(key, value)| (key.as_str(), value.clone())))
        }
        _ => json(JSON.map(|(key, value)| (key, value.into()))),
    }
}

fn format(of: &LogFormat) -> substitution_format_string::Format {
    match of {
        LogFormat::Default => text(FORMAT),
        LogFormat::Text(written) if written.ends_with('\n') => text(written),
        LogFormat::Text(written) => text(&format!("{written}\n")),
        LogFormat::Json(fields) => json(fields.iter().map(|(key, value)| (key.as_str(), value.clone()))),
    }
}

fn text(format: &str) -> substitution_format_string::Format {
    substitution_format_string::Format::TextFormatSource(DataSource {
        specifier: Some(data_source::Specifier::InlineString(format.to_owned())),
        ..Default::default()
    })
}

fn json<'a>(
    fields: impl IntoIterator<Item = (&'a str, serde_json::Value)>,
) -> substitution_format_string::Format {
    substitution_format_string::Format::JsonFormat(structure(fields))
}

fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, serde_json::Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), protobuf(value))).collect() }
}

fn protobuf(written: serde_json::Value) -> Value {
    let kind = match written {
        serde_json::Value::Null => value::Kind::NullValue(0),
        serde_json::Value::Bool(flag) => value::Kind::BoolValue(flag),
        serde_json::Value::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => value::Kind::StringValue(text),
        serde_json::Value::Array(items) => value::Kind::ListValue(policies_xds::protobuf::ListValue {
            values: items.into_iter().map(protobuf).collect(),
        }),
        serde_json::Value::Object(fields) => value::Kind::StructValue(structure(
            fields.iter().map(|(key, value)| (key.as_str(), value.clone())),
        )),
    };
    Value { kind: Some(kind) }
}

fn file_log(path: &str, format: substitution_format_string::Format, omit_empty: bool) -> AccessLog {
    let format = SubstitutionFormatString {
        format: Some(format),
        omit_empty_values: omit_empty,
        ..Default::default()
    };
    let log = FileAccessLog {
        path: if path.is_empty() { STANDARD_OUTPUT } else { path }.to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    typed("envoy.access_loggers.file", any(&log))
}

fn typed(name: &str, config: Any) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}
