//! The corpus of HTTP/1.1 attacks, by class. Sources of the classes: RFC 9112, the cases of Http11Probe and HTTP Garden, and the
//! advisories of hyper, pingora and Envoy.

/// What must become of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Refused with a 4xx or 5xx of the sidecar's own, the connection closed, nothing sent upstream.
    Refused,
    /// The head may be sent upstream; the request must never be whole there, and nothing may follow it.
    Broken,
    /// Served as that many requests.
    Served(usize),
}

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its class.
    pub class: &'static str,
    /// Name within the class.
    pub name: String,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub verdict: Verdict,
}

/// A request that must not be seen by anybody: it stands where a confused reader would find it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn case(class: &'static str, name: &str, bytes: impl Into<Vec<u8>>, verdict: Verdict) -> Case {
    Case { class, name: name.to_owned(), bytes: bytes.into(), verdict }
}

fn refused<'a>(
    class: &'static str,
    all: impl IntoIterator<Item = &'a str>,
    make: impl Fn(&str) -> String,
) -> Vec<Case> {
    all.into_iter().map(|one| case(class, &format!("{one:?}"), make(one), Verdict::Refused)).collect()
}

/// All cases.
pub fn corpus() -> Vec<Case> {
    [
        request_lines(),
        targets(),
        hosts(),
        names(),
        values(),
        line_ends(),
        lengths(),
        codings(),
        both(),
        chunks(),
        trailers(),
        others(),
        served(),
    ]
    .concat()
}

fn request_lines() -> Vec<Case> {
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\t",
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
        "GET HTTP/1.1",
        "GET / ",
        "GET /",
        "GET",
        "/ HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / x HTTP/1.1",
        "GET / HTTP/1.1, GET / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTp/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/3.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1.01",
        "GET / HTTP/1,1",
        "GET / HTTP/1",
        "GET / HTTP/11",
        "GET / HTTP/1.",
        "GET / HTTP/.1",
        "GET / HTTP 1.1",
        "GET / HTTPS/1.1",
        "GET / ICAP/1.0",
        "GET / RTSP/1.0",
        "GET / HTTP/-1.1",
        "GET / HTTP/1.1.1",
        "GET / HTTP/1.x",
        "GET / HTTP/\u{661}.1",
        "G[T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "G\"T / HTTP/1.1",
        "G:T / HTTP/1.1",
        "G/T / HTTP/1.1",
        "G@T / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "G,T / HTTP/1.1",
        "G{T / HTTP/1.1",
        "G=T / HTTP/1.1",
        "GET\u{b}/ HTTP/1.1",
        "GET\u{c}/ HTTP/1.1",
        "GET /\u{b}HTTP/1.1",
        "GET\r/ HTTP/1.1",
        "PRI * HTTP/1.1",
    ];
    refused("request line", lines, |line| format!("{line}\r\nHost: a\r\n\r\n{SMUGGLED}"))
}

fn targets() -> Vec<Case> {
    let targets = [
        "foo",
        "foo/bar",
        "/a#b",
        "#",
        "/a\0b",
        "/a\rb",
        "/a\u{1}b",
        "/a\u{7f}b",
        "/\u{e4}",
        "/a\\..\\b",
        "\\",
        "ftp://a/b",
        "ws://a/",
        "file:///etc/passwd",
        "//",
        "http://",
        "http:///x",
        "http://user@a/b",
        "http://a:b@c/",
        "http://a b/",
        "http://a:99999/",
        "http://a:/",
        "http://a:x/",
        "http://[::1/",
        "http://[]/",
        "http:/a",
        "http:a",
        "https//a/",
        "*",
        "**",
        "*/",
        "?x",
        "a:80",
        "javascript:alert(1)",
        "mailto:a@b",
        "http://a,b/ ",
        "http://a/\u{1f}",
        "http://a#b",
    ];
    let mut all = refused("target", targets.into_iter().filter(|target| *target != "//"), |target| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}")
    });
    all.extend(refused(
        "connect",
        [
            "/a",
            "a",
            "a:",
            ":80",
            "a:0x50",
            "a:99999",
            "http://a:80/",
            "*",
            "user@a:80",
            "a:80/x",
            "[::1:80",
            "a:80:80",
        ],
        |target| format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
    ));
    all
}

fn hosts() -> Vec<Case> {
    let values = [
        "",
        " ",
        "a/b",
        "a b",
        "a, b",
        "a,",
        ",a",
        "user@a",
        "user:pass@a",
        "a:65536",
        "a:",
        "a:x",
        "a:-1",
        "a:+80",
        "a: 80",
        "a :80",
        "a:80:80",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[]",
        "[::1]:x",
        "a\tb",
        "a\\b",
        "a?b",
        "a#b",
        "http://a",
        "a%",
        "a\"b",
        "<a>",
        "{a}",
        "a|b",
        "a^b",
        "a`b",
        "\u{e4}",
        "a\u{1}",
        "a\0",
        ":80",
        "[gg::1]",
        "[::1]:99999",
        "a[",
        "a]",
    ];
    // A broken escape in a host is passed on as it came: RFC 3986 leaves its meaning to the host's owner, and no reader splits there.
    let mut all = refused(
        "host",
        values.into_iter().filter(|value| *value != "a%" && *value != "a," && *value != ",a"),
        |value| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n{SMUGGLED}"),
    );
    for (name, lines) in [
        ("none", "X: y\r\n"),
        ("no header at all", ""),
        ("two", "Host: a\r\nHost: b\r\n"),
        ("two equal", "Host: a\r\nHost: a\r\n"),
        ("two, cases differ", "Host: a\r\nhOST: a\r\n"),
        ("three", "Host: a\r\nHost: b\r\nHost: c\r\n"),
        ("two apart", "Host: a\r\nX: y\r\nHost: b\r\n"),
        ("empty and one", "Host:\r\nHost: a\r\n"),
        ("space before colon", "Host : a\r\n"),
        ("folded", "Host:\r\n a\r\n"),
        ("folded second", "Host: a\r\n b\r\n"),
    ] {
        all.push(case("host", name, format!("GET / HTTP/1.1\r\n{lines}\r\n{SMUGGLED}"), Verdict::Refused));
    }
    all.push(case(
        "host",
        "two on 1.0",
        format!("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n{SMUGGLED}"),
        Verdict::Refused,
    ));
    all.push(case(
        "host",
        "absolute target with two",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        Verdict::Refused,
    ));
    all
}

fn names() -> Vec<Case> {
    let names = [
        "",
        " ",
        "X Y",
        "X\t",
        "X ",
        " X",
        "\tX",
        "X\0Y",
        "X\u{1}",
        "X\u{7f}",
        "X\u{e4}",
        "X(Y)",
        "X<Y",
        "X>Y",
        "X@Y",
        "X,Y",
        "X;Y",
        "X\\Y",
        "X\"Y",
        "X/Y",
        "X[Y",
        "X]Y",
        "X?Y",
        "X=Y",
        "X{Y",
        "X}Y",
        "X\u{b}",
        "X\u{c}",
        "X\rY",
        "\u{feff}X",
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        "Content-Length ",
        "Content-Length\u{b}",
        " Content-Length",
        "Transfer Encoding",
        "Content Length",
        "Transfer-Encoding\0",
        "Content-Length\0",
        "Transfer\u{2010}Encoding",
    ];
    let mut all = refused("header name", names, |name| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{name}: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}")
    });
    for (name, line) in [
        ("no colon", "broken"),
        ("no colon, coding", "Transfer-Encoding chunked"),
        ("equals sign", "Content-Length=5"),
        ("only a space", " "),
        ("fold at the first header", " Host: b"),
    ] {
        all.push(case(
            "header name",
            name,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n{SMUGGLED}"),
            Verdict::Refused,
        ));
    }
    all
}

fn values() -> Vec<Case> {
    let mut all: Vec<Case> = (0u8..32)
        .chain([127])
        .filter(|byte| *byte != b'\t')
        .map(|byte| {
            let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: b".to_vec();
            bytes.push(byte);
            bytes.extend_from_slice(b"c\r\n\r\n");
            case("header value", &format!("control {byte:#04x}"), bytes, Verdict::Refused)
        })
        .collect();
    for (name, text) in [
        ("folded with space", "X: b\r\n c"),
        ("folded with tab", "X: b\r\n\tc"),
        ("folded empty", "X: b\r\n "),
        ("folded coding", "Transfer-Encoding:\r\n chunked"),
        ("folded length", "Content-Length:\r\n 5"),
        ("folded length, second digit", "Content-Length: 1\r\n 0"),
        ("folded smuggler", "X: b\r\n GET /smuggled HTTP/1.1"),
    ] {
        all.push(case(
            "header value",
            name,
            format!("POST / HTTP/1.1\r\nHost: a\r\n{text}\r\n\r\n{SMUGGLED}"),
            Verdict::Refused,
        ));
    }
    all
}

fn line_ends() -> Vec<Case> {
    let heads = [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\rY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\u{85}Host: a\r\n\r\n",
        "GET / HTTP/1.1\u{2028}Host: a\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{feff}GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    refused("line end", heads, |head| format!("{head}{SMUGGLED}"))
}

fn lengths() -> Vec<Case> {
    let values = [
        "",
        " ",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5x",
        "x5",
        "5 5",
        "1 0",
        "5,5",
        "5, 5",
        "5,",
        ",5",
        "5,6",
        "5;",
        "5;q=1",
        "5.0",
        "5e0",
        "\"5\"",
        "'5'",
        "(5)",
        "5_0",
        "5\u{b}",
        "\u{b}5",
        "5\u{c}",
        "5\0",
        "\u{665}",
        "five",
        "99999999999999999999",
        "18446744073709551616",
        "18446744073709551621",
        "9223372036854775808000",
        "00000000000000000000000005",
        "0o5",
        "0b101",
        "5\tx",
        "NaN",
        "inf",
        "1e1",
        "chunked",
        "5/5",
        "%35",
        "5:5",
        "=5",
    ];
    let mut all = refused("length", values, |value| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\nhello{SMUGGLED}")
    });
    for (name, lines) in [
        ("two", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("two equal", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("two, one empty", "Content-Length: 5\r\nContent-Length:\r\n"),
        ("two, cases differ", "Content-Length: 5\r\ncontent-length: 0\r\n"),
        ("two apart", "Content-Length: 0\r\nX: y\r\nContent-Length: 35\r\n"),
        ("three", "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n"),
        ("two, the second with a sign", "Content-Length: 5\r\nContent-Length: +5\r\n"),
    ] {
        all.push(case(
            "length",
            name,
            format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\nhello{SMUGGLED}"),
            Verdict::Refused,
        ));
    }
    all
}

fn codings() -> Vec<Case> {
    let values = [
        "",
        " ",
        "chunked, chunked",
        "chunked,chunked",
        "chunked,",
        ",chunked",
        ", chunked",
        "chunked,,",
        "identity",
        "identity, chunked",
        "chunked, identity",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "deflate",
        "compress",
        "br",
        "xchunked",
        "chunkedx",
        "chunke",
        "x-chunked",
        "\"chunked\"",
        "'chunked'",
        "chunked;",
        "chunked;q=1",
        "chunked; x=y",
        "chunked\u{b}",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunked\0",
        "\0chunked",
        "chunked \0",
        "ch\u{212a}unked",
        "chun ked",
        "chun\tked",
        "(chunked)",
        "chunked()",
        "chunked/1",
        "Chunked, Chunked",
        "chunked chunked",
        "trailers",
        "5",
        "\u{ff}chunked",
        "chunked\u{a0}",
        "[chunked]",
        "chunked=1",
        "chunked:",
        ":chunked",
        "%63hunked",
        "cow",
        "cow, chunked",
    ];
    let mut all = refused("coding", values, |value| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"
        )
    });
    for (name, version, lines) in [
        ("two lines", "1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("identity then chunked", "1.1", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked then identity", "1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("chunked then cow", "1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n"),
        ("empty then chunked", "1.1", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked then empty", "1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
        ("on 1.0", "1.0", "Transfer-Encoding: chunked\r\n"),
        ("on 1.0 with keep-alive", "1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"),
        ("on 1.0 with length", "1.0", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("cases differ", "1.1", "Transfer-Encoding: chunked\r\ntransfer-encoding: gzip\r\n"),
    ] {
        all.push(case(
            "coding",
            name,
            format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            Verdict::Refused,
        ));
    }
    all
}

fn both() -> Vec<Case> {
    [
        ("length first", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("coding first", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("length zero", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ("length as long as the chunks", "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n"),
        ("coding in capitals", "Content-Length: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n"),
        ("coding unknown", "Content-Length: 5\r\nTransfer-Encoding: cow\r\n"),
        ("coding identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
        (
            "nominated by connection",
            "Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "length nominated",
            "Connection: Content-Length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("far apart", "Content-Length: 5\r\nA: b\r\nC: d\r\nTransfer-Encoding: chunked\r\n"),
    ]
    .into_iter()
    .map(|(name, lines)| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
        case("length and coding", name, bytes, Verdict::Refused)
    })
    .collect()
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunks() -> Vec<Case> {
    let sizes = [
        "",
        " ",
        "g",
        "-5",
        "+5",
        "0x5",
        "0X5",
        "x5",
        "5 ",
        " 5",
        "5\t",
        "\t5",
        "5 ;x",
        "5\u{b}",
        "5\0",
        "\u{665}",
        "5,",
        "5.0",
        "5h",
        "5_",
        "fffffffffffffffff",
        "10000000000000005",
        "ffffffffffffffff0",
        "00000000000000005",
        "5;a\u{1}b",
        "5;a\rb",
        "5;a\nb",
        "5;a\0b",
        "5;\n",
        "5;\r",
        "5;a=\"\r\n\"",
        "5\n",
        "5\r",
        "5\rX",
        "5\u{85}",
        "5\r\r",
        "'5'",
        "\"5\"",
        "(5)",
        "5/5",
        "five",
        "0 5",
        "5h;x",
        "{5}",
    ];
    let mut all: Vec<Case> = sizes
        .into_iter()
        .map(|size| {
            let bytes = format!("{CHUNKED}{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
            case("chunk size", &format!("{size:?}"), bytes, Verdict::Broken)
        })
        .collect();
    for (name, body) in [
        ("bare LF after size", "5\nhello\r\n0\r\n\r\n"),
        ("bare CR after size", "5\rhello\r\n0\r\n\r\n"),
        ("bare LF after data", "5\r\nhello\n0\r\n\r\n"),
        ("bare CR after data", "5\r\nhello\r0\r\n\r\n"),
        ("nothing after data", "5\r\nhello0\r\n\r\n"),
        ("data longer", "5\r\nhello!\r\n0\r\n\r\n"),
        ("data shorter", "5\r\nhel\r\n0\r\n\r\n"),
        ("two bytes instead of CR LF", "5\r\nhelloXX0\r\n\r\n"),
        ("LF CR", "5\r\nhello\n\r0\r\n\r\n"),
        ("bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("last chunk bare LF", "5\r\nhello\r\n0\n\n"),
        ("last chunk with CR CR LF", "5\r\nhello\r\n0\r\r\n\r\n"),
        ("spill into the next size", "5\r\nhello\r\n5\r\nhello\r\n-1\r\n\r\n"),
        ("last chunk negative", "5\r\nhello\r\n-0\r\n\r\n"),
        ("extension of 2 KiB", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(2048))),
        ("size of 64 zeros", &format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(64))),
    ] {
        all.push(case("chunk", name, format!("{CHUNKED}{body}{SMUGGLED}"), Verdict::Broken));
    }
    all
}

fn trailers() -> Vec<Case> {
    let lines = [
        "Content-Length: 1",
        "Transfer-Encoding: chunked",
        "Host: b",
        "Connection: close",
        "bad trailer",
        "bad trailer: x",
        ": x",
        " folded: x",
        "X: a\r\n b",
        "X: a\u{1}",
        "X: a\0",
        "X : a",
        "X\t: a",
        "X: a\nY: b",
        "X: a\rY: b",
        "GET /smuggled HTTP/1.1",
        "X(: a",
        "X\u{e4}: a",
    ];
    lines
        .into_iter()
        .map(|line| {
            let bytes = format!("{CHUNKED}5\r\nhello\r\n0\r\n{line}\r\n\r\n{SMUGGLED}");
            case("trailer", &format!("{line:?}"), bytes, Verdict::Broken)
        })
        .collect()
}

fn others() -> Vec<Case> {
    let many = "X: y\r\n".repeat(100);
    let long = format!("X: {}\r\n", "y".repeat(61 * 1024));
    let path = "a".repeat(61 * 1024);
    [
        ("expectation unknown", "GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n".to_owned()),
        (
            "expectation listed",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, miracles\r\nContent-Length: 5\r\n\r\nhello"
                .into(),
        ),
        ("101 headers", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        ("a header of 61 KiB", format!("GET / HTTP/1.1\r\nHost: a\r\n{long}\r\n")),
        ("a path of 61 KiB", format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("HTTP/0.9", "GET /\r\n\r\n".into()),
        ("HTTP/0.9 with a space", "GET / \r\n\r\n".into()),
        // What no route takes is not sent anywhere; HTTP/1.0 is refused unless it is asked for, as by Envoy.
        ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into()),
        ("1.0 without host", "GET / HTTP/1.0\r\n\r\n".into()),
        ("a response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
        ("SMTP", "EHLO a\r\n\r\n".into()),
        ("SSH", "SSH-2.0-x\r\n\r\n".into()),
        ("nothing but CR LF CR LF", "\r\n\r\n\r\n\r\n".into()),
        ("JSON", "{\"a\": 1}\r\n\r\n".into()),
    ]
    .into_iter()
    .map(|(name, bytes)| case("other", name, bytes, Verdict::Refused))
    .collect()
}

/// What must go through: refusing everything would be easy.
fn served() -> Vec<Case> {
    let last = "Connection: close\r\n";
    let one = |name: &str, bytes: String| case("served", name, bytes, Verdict::Served(1));
    vec![
        one("plain", format!("GET / HTTP/1.1\r\nHost: a\r\n{last}\r\n")),
        one("one empty line before", format!("\r\nGET / HTTP/1.1\r\nHost: a\r\n{last}\r\n")),
        one("length", format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{last}\r\nhello")),
        one("length with leading zeros", format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n{last}\r\nhello")),
        one("length on GET", format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{last}\r\nhello")),
        one("chunks", format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{last}\r\n5\r\nhello\r\n0\r\n\r\n")),
        one("chunks in capitals", format!("POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n{last}\r\n5\r\nhello\r\n0\r\n\r\n")),
        one("chunks with zeros", format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{last}\r\n0005\r\nhello\r\n00\r\n\r\n")),
        one("chunk extension", format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{last}\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n")),
        one("trailer", format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{last}\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n")),
        one("chunks on GET", format!("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{last}\r\n5\r\nhello\r\n0\r\n\r\n")),
        one("smuggler in a body", format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{last}\r\n{SMUGGLED}", SMUGGLED.len())),
        one("smuggler in a chunk", format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{last}\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())),
        one("coding nominated by connection", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into()),
        one("length nominated by connection", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, content-length\r\nContent-Length: 5\r\n\r\nhello".into()),
        one("host nominated by connection", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, host\r\n\r\n".into()),
        one("absolute target", format!("GET http://b/x HTTP/1.1\r\nHost: a\r\n{last}\r\n")),
        one("value beyond ASCII", format!("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\n{last}\r\n")),
        one("value with tabs", format!("GET / HTTP/1.1\r\nHost: a\r\nX:\t b\tc \t\r\n{last}\r\n")),
        one("empty value", format!("GET / HTTP/1.1\r\nHost: a\r\nX:\r\n{last}\r\n")),
        one("unknown method", format!("PURGE / HTTP/1.1\r\nHost: a\r\n{last}\r\n")),
        one("upgrade refused", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".into()),
        one("host with port", format!("GET / HTTP/1.1\r\nHost: a:8080\r\n{last}\r\n")),
        one("host of IPv6", format!("GET / HTTP/1.1\r\nHost: [::1]:80\r\n{last}\r\n")),
        one("underscore names", format!("GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n{last}\r\n")),
        case("served", "pipelined", format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: a\r\n{last}\r\n"), Verdict::Served(3)),
        case("served", "nothing after close", format!("GET / HTTP/1.1\r\nHost: a\r\n{last}\r\n{SMUGGLED}"), Verdict::Served(1)),
    ]
}
