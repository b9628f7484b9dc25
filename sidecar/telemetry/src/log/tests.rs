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
    let mut metadata = sidecar_model::Metadata::default();
    metadata.set("a", serde_json::json!({"b": {"c": 7}}));
    entry.metadata = Some(&metadata);
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
        text("%REQ_WITHOUT_QUERY(:PATH)% %DYNAMIC_METADATA(a:b:c)% %METADATA(CLUSTER:a)%"),
        "/productpage 7 -"
    );
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
        ("code", "%RESPONSE_CODE%".into()),
        ("agent", "%REQ(USER-AGENT)%".into()),
        ("xff", "%REQ(X-FORWARDED-FOR)%".into()),
        ("both", "%PROTOCOL% %DURATION%".into()),
        ("more", serde_json::json!({"a": ["%REQ(:METHOD)%", 1], "b": "%REQ(x-none)%"})),
    ];
    let config = |omit| AccessLog {
        sink: LogSink::Stdout,
        format: LogFormat::Json(Arc::new(
            fields.clone().into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        )),
        omit_empty_values: omit,
        filter: None,
    };
    let filled = |omit: bool| {
        let logger = AccessLogger::new(&config(omit));
        let (mut request, _) = logger.headers();
        request.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        assert_eq!(request, ["user-agent", "x-forwarded-for", "x-none"]);
        let Line::Json(template) = &logger.line else { panic!("not JSON") };
        let mut line = String::new();
        with_entry(|entry| json(template, entry, omit, &mut line));
        let mut value: Value = serde_json::from_str(&line).unwrap();
        let failure = value.as_object_mut().unwrap().remove("failure").unwrap();
        assert_eq!((&failure["flag"], failure["hint"].as_str().unwrap().is_empty()), (&"UF".into(), false));
        value
    };
    let more = serde_json::json!({"a": ["GET", 1], "b": null});
    let whole =
        serde_json::json!({"code": 503, "agent": "curl/8", "xff": null, "both": "HTTP/1.1 8", "more": more});
    assert_eq!(filled(false), whole);
    let short =
        serde_json::json!({"code": 503, "agent": "curl/8", "both": "HTTP/1.1 8", "more": {"a": ["GET", 1]}});
    assert_eq!(filled(true), short);
}

#[test]
fn expressions_decide() {
    let holds = |source: &str| {
        let expression = sidecar_model::cel::Expression::new(source).unwrap();
        with_entry(|entry| cel::holds(&expression, entry))
    };
    for (source, expected) in [
        ("response.code >= 500", true),
        ("response.code == 503 && request.method == 'GET'", true),
        ("response.code < 500 || request.url_path.startsWith('/product')", true),
        ("request.headers['user-agent'].matches('^curl/[0-9]+$')", true),
        ("'x-none' in request.headers", false),
        ("!has(request.headers['x-none'])", true),
        // What is not there makes the comparison unknown, whichever way it is asked.
        ("request.headers['x-none'] == 'a'", false),
        ("request.headers['x-none'] != 'a'", false),
        ("request.headers['x-none'] == 'a' || response.code == 503", true),
        ("request.duration > duration('8ms') && request.duration < duration('9ms')", true),
        ("response.code in [404, 503]", true),
        ("size(request.host) == 16 ? request.query == 'u=normal' : false", true),
        ("response.code / 0 == 1", false),
        ("upstream.port == 9080 && xds.route_name == 'default'", true),
        ("request.path", false),
    ] {
        assert_eq!(holds(source), expected, "{source}");
    }
}

#[test]
fn filters_and_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let sink = LogSink::File(path.to_str().unwrap().into());
    let format = LogFormat::Text("%RESPONSE_CODE%".into());
    let log =
        |filter| AccessLog { sink: sink.clone(), format: format.clone(), omit_empty_values: false, filter };
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
