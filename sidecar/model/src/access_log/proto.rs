//! `envoy.config.accesslog.v3.AccessLog` with the file, stdout and stderr loggers.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{AccessLog, Comparison, LogFilter, LogFormat, LogSink};
use crate::cel::Expression;
use crate::convert::{At, Converted, data_text, each, enumeration, not_empty, refuse, required, unpack};
use crate::invalid::Invalid;
use crate::matcher::proto::{fraction, header_match};
use crate::metadata::proto::structure;
use policies_xds::access_log::access_log::ConfigType;
use policies_xds::access_log::access_log_filter::FilterSpecifier;
use policies_xds::access_log::comparison_filter::Op;
use policies_xds::access_log::{AccessLogFilter, ComparisonFilter, extension_filter};
use policies_xds::access_log_cel::ExpressionFilter;
use policies_xds::core::SubstitutionFormatString;
use policies_xds::core::substitution_format_string::Format;
use policies_xds::file_access_log::{FileAccessLog, file_access_log};
use policies_xds::protobuf::{Any, Struct};
use policies_xds::stream_access_log::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use prost::Name;
use std::sync::Arc;

/// Nesting of JSON formats.
const JSON_DEPTH_MAX: usize = 8;
/// Command operators whose values this proxy does not hold.
const NOT_HELD: [&str; 7] = [
    "FILTER_STATE",
    "UPSTREAM_FILTER_STATE",
    "CEL",
    "COALESCE",
    "DOWNSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT",
    "QUERY_PARAMS",
];

pub(crate) fn access_logs(
    field: &str,
    messages: &[policies_xds::access_log::AccessLog],
) -> Converted<Vec<AccessLog>> {
    each(field, messages, access_log)
}

fn access_log(message: &policies_xds::access_log::AccessLog) -> Converted<AccessLog> {
    let ConfigType::TypedConfig(config) = required("typed_config", &message.config_type)?;
    let (sink, (format, omit_empty_values)) = sink(&message.name, config)?;
    let filter = message.filter.as_ref().map(filter).transpose().at("filter")?;
    Ok(AccessLog { sink, format, omit_empty_values, filter })
}

/// A format, and whether values that are not there are left out.
type Form = (LogFormat, bool);

fn sink(name: &str, config: &Any) -> Converted<(LogSink, Form)> {
    let url = config.type_url.as_str();
    if url == FileAccessLog::type_url() {
        let message: FileAccessLog = unpack("typed_config", config)?;
        let sink = match not_empty("typed_config.path", &message.path)? {
            "/dev/stdout" => LogSink::Stdout,
            "/dev/stderr" => LogSink::Stderr,
            path => LogSink::File(path.into()),
        };
        return Ok((sink, file_format(message.access_log_format).at("typed_config")?));
    }
    if url == StdoutAccessLog::type_url() {
        let message: StdoutAccessLog = unpack("typed_config", config)?;
        let format = message.access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(it)| it);
        return Ok((LogSink::Stdout, substitution(format.as_ref()).at("typed_config.log_format")?));
    }
    if url == StderrAccessLog::type_url() {
        let message: StderrAccessLog = unpack("typed_config", config)?;
        let format = message.access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(it)| it);
        return Ok((LogSink::Stderr, substitution(format.as_ref()).at("typed_config.log_format")?));
    }
    Err(Invalid::unsupported("typed_config", format!("access logger `{name}` of type `{url}`")))
}

fn file_format(format: Option<file_access_log::AccessLogFormat>) -> Converted<Form> {
    use file_access_log::AccessLogFormat as Message;
    match format {
        None => Ok((LogFormat::Default, false)),
        Some(Message::Format(text)) => Ok((text_format(&text).at("format")?, false)),
        Some(Message::JsonFormat(fields)) => Ok((json(&fields).at("json_format")?, false)),
        Some(Message::TypedJsonFormat(fields)) => Ok((json(&fields).at("typed_json_format")?, false)),
        Some(Message::LogFormat(message)) => substitution(Some(&message)).at("log_format"),
    }
}

fn substitution(message: Option<&SubstitutionFormatString>) -> Converted<Form> {
    let Some(message) = message else { return Ok((LogFormat::Default, false)) };
    refuse("formatters", !message.formatters.is_empty())?;
    let format = match &message.format {
        None => LogFormat::Default,
        Some(Format::TextFormat(text)) => text_format(text).at("text_format")?,
        Some(Format::TextFormatSource(source)) => {
            text_format(data_text("text_format_source", source)?).at("text_format_source")?
        }
        Some(Format::JsonFormat(fields)) => json(fields).at("json_format")?,
    };
    Ok((format, message.omit_empty_values))
}

fn text_format(text: &str) -> Converted<LogFormat> {
    operators(text)?;
    Ok(if text.is_empty() { LogFormat::Default } else { LogFormat::Text(text.into()) })
}

/// Keys come in their own order, since a struct has none.
fn json(fields: &Struct) -> Converted<LogFormat> {
    let serde_json::Value::Object(fields) = structure(fields) else { return Ok(LogFormat::Default) };
    for (key, field) in &fields {
        texts(field, 0).at(key)?;
    }
    Ok(LogFormat::Json(Arc::new(fields)))
}

fn texts(field: &serde_json::Value, depth: usize) -> Converted<()> {
    match field {
        serde_json::Value::String(text) => operators(text),
        serde_json::Value::Object(_) | serde_json::Value::Array(_) if depth >= JSON_DEPTH_MAX => {
            Err(Invalid::new("", format!("must not nest deeper than {JSON_DEPTH_MAX}")))
        }
        serde_json::Value::Object(fields) => {
            fields.iter().try_for_each(|(key, field)| texts(field, depth + 1).at(key))
        }
        serde_json::Value::Array(items) => items.iter().try_for_each(|item| texts(item, depth + 1)),
        _ => Ok(()),
    }
}

/// Refuses operators that could only ever be empty here.
fn operators(text: &str) -> Converted<()> {
    for name in NOT_HELD {
        let operator = format!("%{name}");
        let used = text
            .match_indices(&operator)
            .any(|(at, _)| matches!(text.as_bytes().get(at + operator.len()), Some(b'%' | b'(')));
        if used {
            return Err(Invalid::unsupported("", format!("command operator `{operator}%`")));
        }
    }
    Ok(())
}

fn filter(message: &AccessLogFilter) -> Converted<LogFilter> {
    use FilterSpecifier as Filter;
    Ok(match required("filter_specifier", &message.filter_specifier)? {
        Filter::StatusCodeFilter(it) => {
            LogFilter::Status(comparison(&it.comparison).at("status_code_filter")?)
        }
        Filter::DurationFilter(it) => LogFilter::Duration(comparison(&it.comparison).at("duration_filter")?),
        Filter::NotHealthCheckFilter(_) => LogFilter::NotHealthCheck,
        Filter::RuntimeFilter(it) => {
            let sampled = required("runtime_filter.percent_sampled", &it.percent_sampled)?;
            LogFilter::Random(fraction(sampled).at("runtime_filter.percent_sampled")?)
        }
        Filter::AndFilter(it) => LogFilter::And(each("and_filter.filters", &it.filters, filter)?),
        Filter::OrFilter(it) => LogFilter::Or(each("or_filter.filters", &it.filters, filter)?),
        Filter::HeaderFilter(it) => {
            let header = required("header_filter.header", &it.header)?;
            LogFilter::Header(header_match(header).at("header_filter.header")?)
        }
        Filter::ResponseFlagFilter(it) => LogFilter::ResponseFlag(crate::convert::boxed(&it.flags)),
        Filter::GrpcStatusFilter(it) => LogFilter::GrpcStatus {
            codes: each("grpc_status_filter.statuses", &it.statuses, |code| {
                u32::try_from(*code).map_err(|_| Invalid::new("", "must not be negative"))
            })?,
            exclude: it.exclude,
        },
        Filter::TraceableFilter(_) => return Err(Invalid::unsupported("traceable_filter", "this filter")),
        Filter::MetadataFilter(_) => return Err(Invalid::unsupported("metadata_filter", "this filter")),
        Filter::LogTypeFilter(_) => return Err(Invalid::unsupported("log_type_filter", "this filter")),
        Filter::ExtensionFilter(it) if is_expression(&it.config_type) => {
            let Some(extension_filter::ConfigType::TypedConfig(config)) = &it.config_type else {
                return Err(Invalid::missing("extension_filter.typed_config"));
            };
            let message: ExpressionFilter = unpack("extension_filter.typed_config", config)?;
            let expression = Expression::new(&message.expression);
            LogFilter::Expression(expression.at("extension_filter.typed_config.expression")?)
        }
        Filter::ExtensionFilter(it) => {
            return Err(Invalid::unsupported("extension_filter", format!("filter `{}`", it.name)));
        }
    })
}

fn is_expression(config: &Option<extension_filter::ConfigType>) -> bool {
    let Some(extension_filter::ConfigType::TypedConfig(config)) = config else { return false };
    config.type_url == ExpressionFilter::type_url()
}

fn comparison(message: &Option<ComparisonFilter>) -> Converted<Comparison> {
    let message = required("comparison", message)?;
    let value = required("comparison.value", &message.value)?.default_value;
    match enumeration("comparison.op", message.op)? {
        Op::Eq => Ok(Comparison::Equal(value)),
        Op::Ge => Ok(Comparison::AtLeast(value)),
        Op::Le => Ok(Comparison::AtMost(value)),
        Op::Ne => Ok(Comparison::NotEqual(value)),
    }
}

#[cfg(test)]
mod tests;
