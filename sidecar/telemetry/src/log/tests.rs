use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::flags::{Flag, Flags};

fn with_entry<T>(use_it: impl FnOnce(&Entry<'_>) -> T) -> T {
    let none = HeaderMap::new();
    let mut request = HeaderMap::new();
    request.insert("user-agent", HeaderValue::from_static("curl/8"));
    request.insert("x-request-id", HeaderValue::from_static("id-1"));
    let mut response = HeaderMap::new();
    response.insert("x-envoy-upstream-service-time", HeaderValue::from_static("7"));
    let mut entry = Entry::new(&none);
    entry.start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    entry.duration = Duration::from_micros(8_900);
    entry.protocol = "HTTP/1.1";
    entry.method = "GET";
    entry.path = "/productpage?u=normal";
    entry.authority = "productpage:9080";
    entry.request = &request;
    entry.response = &response;
    entry.code = 503;
    entry.flags = Flags::from(Flag::UpstreamConnectionFailure);
    entry.details = "upstream_reset_before_response_started{connection_failure}";
    entry.bytes_sent = 91;
    entry.upstream_host = Some("10.244.1.5:9080".parse().unwrap());
    entry.upstream_cluster = "outbound|9080||productpage.default.svc.cluster.local";
    entry.downstream_local = Some("10.96.3.4:9080".parse().unwrap());
    entry.downstream_remote = Some("10.244.2.6:41000".parse().unwrap());
    entry.route = "default";
    use_it(&entry)
}

fn text(format: &str) -> String {
    with_entry(|entry| {
        let mut out = String::new();
        Format::new(format).unwrap().write(entry, &mut out);
        out
    })
}

#[test]
fn istios_default_line() {
    assert_eq!(
        text(ISTIO_FORMAT),
        "[2023-11-14T22:13:20.123Z] \"GET /productpage?u=normal HTTP/1.1\" 503 UF \
         upstream_reset_before_response_started{connection_failure} - \"-\" 0 91 8 7 \"-\" \"curl/8\" \"id-1\" \
         \"productpage:9080\" \"10.244.1.5:9080\" outbound|9080||productpage.default.svc.cluster.local - \
         10.96.3.4:9080 10.244.2.6:41000 - default\n"
    );
}

#[test]
fn operators_with_arguments() {
    assert_eq!(text("%REQ(X-NONE?User-Agent):3%|%REQ(x-none)%|100%%"), "cur|-|100%");
    assert_eq!(text("%START_TIME(%Y/%m/%d %H:%M:%S.%3f)%"), "2023/11/14 22:13:20.123");
    assert_eq!(text("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:%DOWNSTREAM_REMOTE_PORT%"), "10.244.2.6:41000");
    assert_eq!(
        text("%DYNAMIC_METADATA(istio.mixer:status)% %RESPONSE_FLAGS_LONG%"),
        "- UpstreamConnectionFailure"
    );
    assert_eq!(Format::new("%NO_SUCH%").unwrap_err(), FormatError::Unknown("NO_SUCH".into()));
    assert_eq!(Format::new("a %REQ(x").unwrap_err(), FormatError::Unterminated(2));
    assert_eq!(Format::new("plain").unwrap().literal(), Some("plain"));
}

#[test]
fn json_keeps_types_and_order() {
    let fields = [
        ("code", "%RESPONSE_CODE%"),
        ("agent", "%REQ(USER-AGENT)%"),
        ("xff", "%REQ(X-FORWARDED-FOR)%"),
        ("both", "%PROTOCOL% %DURATION%"),
    ];
    let config = AccessLog {
        sink: LogSink::Stdout,
        format: LogFormat::Json(fields.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect()),
        filter: None,
    };
    let logger = AccessLogger::new(&config);
    let (request, _) = logger.headers();
    assert_eq!(request, ["user-agent", "x-forwarded-for"]);
    let Line::Json(fields) = &logger.line else { panic!("not JSON") };
    let mut line = String::new();
    with_entry(|entry| json(fields, entry, &mut line));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value, serde_json::json!({"code": 503, "agent": "curl/8", "xff": null, "both": "HTTP/1.1 8"}));
}

#[test]
fn filters_and_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let sink = LogSink::File(path.to_str().unwrap().into());
    let format = LogFormat::Text("%RESPONSE_CODE%".into());
    let log = |filter| AccessLog { sink: sink.clone(), format: format.clone(), filter };
    let loggers = Loggers::new(&[
        log(Some(LogFilter::Status(sidecar_model::access_log::Comparison::AtLeast(500)))),
        log(Some(LogFilter::ResponseFlag(vec!["NR".into()]))),
    ]);
    let writer = LogWriter::start().unwrap();
    with_entry(|entry| loggers.log(entry, 0, &writer));
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string(&path).unwrap_or_default() != "503\n" {
        assert!(std::time::Instant::now() < deadline, "{:?}", std::fs::read_to_string(&path));
        std::thread::yield_now();
    }
    assert_eq!(writer.dropped(), 0);
}
