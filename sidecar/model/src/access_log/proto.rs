//! `envoy.config.accesslog.v3.AccessLog` with the file, stdout and stderr loggers.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{AccessLog, Comparison, LogFilter, LogFormat, LogSink};
use crate::convert::{At, Converted, data_text, each, enumeration, not_empty, required, unpack};
use crate::invalid::Invalid;
use crate::matcher::proto::{fraction, header_match};
use crate::metadata::proto::value;
use policies_xds::access_log::access_log::ConfigType;
use policies_xds::access_log::access_log_filter::FilterSpecifier;
use policies_xds::access_log::comparison_filter::Op;
use policies_xds::access_log::{AccessLogFilter, ComparisonFilter};
use policies_xds::core::SubstitutionFormatString;
use policies_xds::core::substitution_format_string::Format;
use policies_xds::file_access_log::{FileAccessLog, file_access_log};
use policies_xds::protobuf::{Any, Struct};
use policies_xds::stream_access_log::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use prost::Name;

pub(crate) fn access_logs(
    field: &str,
    messages: &[policies_xds::access_log::AccessLog],
) -> Converted<Vec<AccessLog>> {
    each(field, messages, access_log)
}

fn access_log(message: &policies_xds::access_log::AccessLog) -> Converted<AccessLog> {
    let ConfigType::TypedConfig(config) = required("typed_config", &message.config_type)?;
    let (sink, format) = sink(&message.name, config)?;
    let filter = message.filter.as_ref().map(filter).transpose().at("filter")?;
    Ok(AccessLog { sink, format, filter })
}

fn sink(name: &str, config: &Any) -> Converted<(LogSink, LogFormat)> {
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

fn file_format(format: Option<file_access_log::AccessLogFormat>) -> Converted<LogFormat> {
    use file_access_log::AccessLogFormat as Message;
    match format {
        None => Ok(LogFormat::Default),
        Some(Message::Format(text)) => Ok(text_format(&text)),
        Some(Message::JsonFormat(fields)) => json(&fields).at("json_format"),
        Some(Message::TypedJsonFormat(fields)) => json(&fields).at("typed_json_format"),
        Some(Message::LogFormat(message)) => substitution(Some(&message)).at("log_format"),
    }
}

fn substitution(message: Option<&SubstitutionFormatString>) -> Converted<LogFormat> {
    match message.and_then(|message| message.format.as_ref()) {
        None => Ok(LogFormat::Default),
        Some(Format::TextFormat(text)) => Ok(text_format(text)),
        Some(Format::TextFormatSource(source)) => Ok(text_format(data_text("text_format_source", source)?)),
        Some(Format::JsonFormat(fields)) => json(fields).at("json_format"),
    }
}

fn text_format(text: &str) -> LogFormat {
    if text.is_empty() { LogFormat::Default } else { LogFormat::Text(text.into()) }
}

/// Keys come in their own order, since a struct has none.
fn json(fields: &Struct) -> Converted<LogFormat> {
    let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(fields.fields.len());
    for (key, field) in &fields.fields {
        let text = match value(field) {
            serde_json::Value::String(text) => text,
            serde_json::Value::Object(_) | serde_json::Value::Array(_) => {
                return Err(Invalid::unsupported(key.as_str(), "a nested value"));
            }
            plain => plain.to_string(),
        };
        pairs.push((key.as_str().into(), text.into()));
    }
    pairs.sort_unstable();
    Ok(LogFormat::Json(pairs.into()))
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
        Filter::ExtensionFilter(it) => {
            return Err(Invalid::unsupported("extension_filter", format!("filter `{}`", it.name)));
        }
    })
}

fn comparison(message: &Option<ComparisonFilter>) -> Converted<Comparison> {
    let message = required("comparison", message)?;
    let value = required("comparison.value", &message.value)?.default_value;
    match enumeration("comparison.op", message.op)? {
        Op::Eq => Ok(Comparison::Equal(value)),
        Op::Ge => Ok(Comparison::AtLeast(value)),
        Op::Le => Ok(Comparison::AtMost(value)),
        Op::Ne => Err(Invalid::unsupported("comparison.op", "NE")),
    }
}

#[cfg(test)]
mod tests;
