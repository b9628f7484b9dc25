//! Access logs in Envoy's formats.

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
use sidecar_model::AccessLog;
use sidecar_model::access_log::{LogFilter, LogFormat, LogSink};

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
    filter: Option<LogFilter>,
}

#[derive(Debug)]
enum Line {
    Text(Format),
    Json(Vec<(Box<str>, Format)>),
}

impl AccessLogger {
    /// Compiles what the configuration says. An operator that is not known is written as `-`, as for a value that is not there.
    pub fn new(config: &AccessLog) -> Self {
        let line = match &config.format {
            LogFormat::Default => Line::Text(Format::lenient(ENVOY_FORMAT)),
            LogFormat::Text(text) => Line::Text(Format::lenient(text)),
            LogFormat::Json(fields) => {
                Line::Json(fields.iter().map(|(key, text)| (key.clone(), Format::lenient(text))).collect())
            }
        };
        Self { sink: config.sink.clone(), line, filter: config.filter.clone() }
    }

    /// Headers of requests and of responses that an entry must have captured.
    pub fn headers(&self) -> (Vec<HeaderName>, Vec<HeaderName>) {
        let (mut request, mut response) = (Vec::new(), Vec::new());
        let formats: Vec<&Format> = match &self.line {
            Line::Text(format) => vec![format],
            Line::Json(fields) => fields.iter().map(|(_, format)| format).collect(),
        };
        for format in formats {
            format.headers(&mut request, &mut response);
        }
        if let Some(filter) = &self.filter {
            filter::headers(filter, &mut request);
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
                format.write(entry, &mut line);
                if !line.ends_with('\n') {
                    line.push('\n');
                }
            }
            Line::Json(fields) => json(fields, entry, &mut line),
        }
        writer.write(&self.sink, line);
    }
}

fn json(fields: &[(Box<str>, Format)], entry: &Entry<'_>, line: &mut String) {
    let mut object = serde_json::Map::with_capacity(fields.len());
    for (key, format) in fields {
        object.insert(key.to_string(), format.json(entry));
    }
    line.push_str(&serde_json::Value::Object(object).to_string());
    line.push('\n');
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
