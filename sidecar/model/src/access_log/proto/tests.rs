use super::*;
use policies_xds::access_log::{
    self as pb, AndFilter, ResponseFlagFilter, StatusCodeFilter, TraceableFilter,
};
use policies_xds::any;
use policies_xds::core::RuntimeUInt32;
use policies_xds::protobuf::{Value, value::Kind};

fn log(config: Any, filter: Option<FilterSpecifier>) -> pb::AccessLog {
    pb::AccessLog {
        name: "envoy.access_loggers.file".into(),
        filter: filter.map(|specifier| AccessLogFilter { filter_specifier: Some(specifier) }),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn file(path: &str, format: Option<file_access_log::AccessLogFormat>) -> Any {
    any(&FileAccessLog { path: path.into(), access_log_format: format })
}

fn path(message: pb::AccessLog) -> String {
    access_logs("access_log", &[message]).unwrap_err().field
}

#[test]
fn sinks_and_formats() {
    let format = |format| {
        let message = SubstitutionFormatString { format: Some(format), ..Default::default() };
        Some(file_access_log::AccessLogFormat::LogFormat(message))
    };
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let fields = [
        ("path".to_owned(), text("%REQ(:PATH)%")),
        ("method".to_owned(), text("%REQ(:METHOD)%")),
        ("version".to_owned(), Value { kind: Some(Kind::NumberValue(1.0)) }),
    ];
    let json = Format::JsonFormat(Struct { fields: fields.into() });
    let messages = [
        log(file("/dev/stdout", format(Format::TextFormat("%START_TIME%\n".into()))), None),
        log(file("/dev/stderr", format(json)), None),
        log(file("/var/log/a", None), None),
        log(any(&StdoutAccessLog::default()), None),
    ];
    let logs = access_logs("access_log", &messages).unwrap();
    assert_eq!(logs[0].format, LogFormat::Text("%START_TIME%\n".into()));
    let LogFormat::Json(fields) = &logs[1].format else { panic!("{logs:?}") };
    let expected = serde_json::json!({"method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "version": 1});
    assert_eq!(Some(&**fields), expected.as_object());
    let sinks: Vec<_> = logs.iter().map(|log| log.sink.clone()).collect();
    assert_eq!(
        sinks,
        [LogSink::Stdout, LogSink::Stderr, LogSink::File("/var/log/a".into()), LogSink::Stdout]
    );
    assert_eq!(logs[3].format, LogFormat::Default);
}

#[test]
fn filters() {
    let status = |op: Op, value| {
        let value = Some(RuntimeUInt32 { default_value: value, ..Default::default() });
        let comparison = Some(ComparisonFilter { op: op.into(), value });
        FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison })
    };
    let flags = FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags: vec!["NR".into()] });
    let both = FilterSpecifier::AndFilter(AndFilter {
        filters: [status(Op::Ge, 400), flags]
            .map(|specifier| AccessLogFilter { filter_specifier: Some(specifier) })
            .into(),
    });
    let logs = access_logs("access_log", &[log(file("/dev/stdout", None), Some(both))]).unwrap();
    let expected = [LogFilter::Status(Comparison::AtLeast(400)), LogFilter::ResponseFlag(vec!["NR".into()])];
    assert_eq!(logs[0].filter, Some(LogFilter::And(expected.into())));
    let other = access_logs("l", &[log(file("/dev/stdout", None), Some(status(Op::Ne, 200)))]).unwrap();
    assert_eq!(other[0].filter, Some(LogFilter::Status(Comparison::NotEqual(200))));
    let expression = |source: &str| {
        let config = ExpressionFilter { expression: source.into(), ..Default::default() };
        FilterSpecifier::ExtensionFilter(pb::ExtensionFilter {
            name: "cel".into(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(any(&config))),
        })
    };
    let errors =
        access_logs("l", &[log(file("/a", None), Some(expression("response.code >= 400")))]).unwrap();
    assert!(matches!(errors[0].filter, Some(LogFilter::Expression(_))));
    let field = path(log(file("/a", None), Some(expression("response.cod >= 400"))));
    assert_eq!(field, "access_log[0].filter.extension_filter.typed_config.expression");
    let state = file_access_log::AccessLogFormat::Format("%FILTER_STATE(a:PLAIN)% %REQ(A)%".into());
    let error = access_logs("access_log", &[log(file("/a", Some(state)), None)]).unwrap_err();
    assert_eq!(error.field, "access_log[0].typed_config.format");
    assert!(error.reason.contains("%FILTER_STATE%"), "{error}");
    let traceable = FilterSpecifier::TraceableFilter(TraceableFilter {});
    let field = path(log(file("/dev/stdout", None), Some(traceable)));
    assert_eq!(field, "access_log[0].filter.traceable_filter");
}

#[test]
fn other_loggers_are_refused_by_name() {
    let other = Any { type_url: "type.googleapis.com/otel".into(), value: vec![] };
    let error = access_logs("access_log", &[log(other, None)]).unwrap_err();
    assert_eq!(error.field, "access_log[0].typed_config");
    assert!(error.reason.contains("envoy.access_loggers.file"));
    assert_eq!(path(log(file("", None), None)), "access_log[0].typed_config.path");
}
