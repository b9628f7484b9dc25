//! Access logs in Envoy's formats.

mod cel;
mod entry;
mod filter;
mod format;
mod operator;
mod writer;

pub use entry::{Captured, Entry, HeaderLookup};
pub use format::{Format, FormatError};
pub use operator::Operator;
pub use writer::LogWriter;

use std::sync::Arc;

use http::HeaderName;
use serde_json::Value;
use sidecar_model::AccessLog;
use sidecar_model::access_log::{LogFilter, LogFormat, LogSink};

use crate::cause;

/// What Istio logs by default.
pub const ISTIO_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// What Envoy logs when no format is given.
pub const ENVOY_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// One access log, its format compiled.
#[derive(Debug)]
pub struct AccessLogger {
    sink: LogSink,
    line: Line,
    omit_empty: bool,
    filter: Option<LogFilter>,
}

#[derive(Debug)]
enum Line {
    Text(Format),
    Json(Template),
}

/// JSON with formats in place of its texts.
#[derive(Debug)]
enum Template {
    Format(Format),
    Plain(Value),
    Object(Vec<(Box<str>, Template)>),
    List(Vec<Template>),
}

impl AccessLogger {
    /// Compiles what the configuration says. An operator that is not known is written as `-`, as for a value that is not there.
    pub fn new(config: &AccessLog) -> Self {
        let line = match &config.format {
            LogFormat::Default => Line::Text(Format::lenient(ENVOY_FORMAT)),
            LogFormat::Text(text) => Line::Text(Format::lenient(text)),
            LogFormat::Json(fields) => Line::Json(Template::object(fields)),
        };
        Self {
            sink: config.sink.clone(),
            line,
            omit_empty: config.omit_empty_values,
            filter: config.filter.clone(),
        }
    }

    /// Headers of requests and of responses that an entry must have captured.
    pub fn headers(&self) -> (Vec<HeaderName>, Vec<HeaderName>) {
        let (mut request, mut response) = (Vec::new(), Vec::new());
        match &self.line {
            Line::Text(format) => format.headers(&mut request, &mut response),
            Line::Json(template) => template.headers(&mut request, &mut response),
        }
        if let Some(filter) = &self.filter {
            filter::headers(filter, &mut request, &mut response);
        }
        (request, response)
    }

    /// Writes the entry's line, unless the filter says no or the writer's queue is full.
    pub fn log(&self, entry: &Entry<'_>, random: u64, writer: &LogWriter) {
        if self.filter.as_ref().is_some_and(|filter| !filter::passes(filter, entry, random)) {
            return;
        }
        let mut line = String::with_capacity(512);
        match &self.line {
            Line::Text(format) => {
                format.write_or(entry, if self.omit_empty { "" } else { "-" }, &mut line);
                if !line.ends_with('\n') {
                    line.push('\n');
                }
            }
            Line::Json(template) => json(template, entry, self.omit_empty, &mut line),
        }
        writer.write(&self.sink, line);
    }
}

/// The object; that of a failed request also says why it failed.
fn json(template: &Template, entry: &Entry<'_>, omit_empty: bool, line: &mut String) {
    let mut value = template.fill(entry, omit_empty);
    if let (Some(cause), Value::Object(fields)) = (cause::of(entry), &mut value) {
        fields.insert("failure".to_owned(), serde_json::to_value(cause).unwrap_or_default());
    }
    line.push_str(&value.to_string());
    line.push('\n');
}

impl Template {
    fn object(fields: &serde_json::Map<String, Value>) -> Self {
        Self::Object(fields.iter().map(|(key, value)| (key.as_str().into(), Self::new(value))).collect())
    }

    fn new(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Format(Format::lenient(text)),
            Value::Object(fields) => Self::object(fields),
            Value::Array(items) => Self::List(items.iter().map(Self::new).collect()),
            plain => Self::Plain(plain.clone()),
        }
    }

    fn fill(&self, entry: &Entry<'_>, omit_empty: bool) -> Value {
        match self {
            Self::Format(format) => format.json(entry),
            Self::Plain(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.fill(entry, omit_empty)).collect(),
            Self::Object(fields) => {
                let filled =
                    fields.iter().map(|(key, field)| (key.to_string(), field.fill(entry, omit_empty)));
                Value::Object(filled.filter(|(_, value)| !(omit_empty && value.is_null())).collect())
            }
        }
    }

    fn headers(&self, request: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
        match self {
            Self::Format(format) => format.headers(request, response),
            Self::Plain(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.headers(request, response)),
            Self::Object(fields) => fields.iter().for_each(|(_, field)| field.headers(request, response)),
        }
    }
}

/// The loggers of one configuration, and the headers they need.
#[derive(Debug, Default)]
pub struct Loggers {
    /// The loggers.
    pub all: Vec<AccessLogger>,
    /// Request headers to capture.
    pub request_headers: Vec<HeaderName>,
    /// Response headers to capture.
    pub response_headers: Vec<HeaderName>,
}

impl Loggers {
    /// Compiles every log of a configuration.
    pub fn new(configs: &[AccessLog]) -> Arc<Self> {
        let mut loggers = Self { all: configs.iter().map(AccessLogger::new).collect(), ..Self::default() };
        for logger in &loggers.all {
            let (request, response) = logger.headers();
            loggers.request_headers.extend(request);
            loggers.response_headers.extend(response);
        }
        for names in [&mut loggers.request_headers, &mut loggers.response_headers] {
            names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            names.dedup();
        }
        Arc::new(loggers)
    }

    /// Whether nothing is logged.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Writes the entry to every log.
    pub fn log(&self, entry: &Entry<'_>, random: u64, writer: &LogWriter) {
        for logger in &self.all {
            logger.log(entry, random, writer);
        }
    }
}

#[cfg(test)]
mod tests;
