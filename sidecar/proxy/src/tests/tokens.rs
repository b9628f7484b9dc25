//! Tokens whose keys are fetched from an issuer that is up, down, slow, or answers garbage.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use http::Response;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use sidecar_model::HttpFilterKind;
use sidecar_model::jwt::JwksSource;
use sidecar_model::listener::Direction;
use tokio::net::TcpListener;

use super::app::App;
use super::build::{cluster, http_listener, manager, route, routes, snapshot};
use super::forge::{Signer, claims, forged, token};
use super::rig::{Client, address, get, plain, with};
use crate::Proxy;
use crate::jwt::tests::{config, provider};

/// How the issuer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Up,
    /// 500 with the keys as its body.
    Fails,
    /// A redirect to the keys.
    Redirects,
    Garbage,
    Empty,
    /// More bytes than any key set has.
    Endless,
    /// A head and never a body.
    Stalls,
}

/// An issuer that serves its keys over HTTP.
struct Issuer {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: String, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(Mutex::new(mode)),
            asked: Arc::default(),
        };
        let (mode, asked) = (Arc::clone(&issuer.mode), Arc::clone(&issuer.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (keys, mode, asked) = (keys.clone(), Arc::clone(&mode), Arc::clone(&asked));
                let service = service_fn(move |_| {
                    asked.fetch_add(1, SeqCst);
                    let answer = answer(*mode.lock(), &keys);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        issuer
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn answer(mode: Mode, keys: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let whole = |text: String| Full::new(Bytes::from(text)).boxed();
    let endless = |first: usize| {
        let piece = |_| Ok(Frame::data(Bytes::from(vec![b' '; 64 * 1024])));
        let pieces = futures::stream::iter(0..first).map(piece).chain(futures::stream::pending());
        http_body_util::BodyExt::boxed(StreamBody::new(pieces))
    };
    let builder = Response::builder();
    match mode {
        Mode::Up => builder.body(whole(keys.to_owned())),
        Mode::Fails => builder.status(500).body(whole(keys.to_owned())),
        Mode::Redirects => builder.status(302).header("location", "/elsewhere").body(whole(keys.to_owned())),
        Mode::Garbage => builder.body(whole("<html>".into())),
        Mode::Empty => builder.body(whole(String::new())),
        Mode::Endless => builder.body(endless(64)),
        Mode::Stalls => builder.body(endless(0)),
    }
    .unwrap()
}

fn guarded(app: &App, issuer: SocketAddr, cache: Duration) -> Proxy {
    let jwks = JwksSource::Remote {
        uri: format!("http://issuer.test:{}/keys?v=1", issuer.port()).into(),
        cluster: "issuer".into(),
        timeout: Duration::from_millis(300),
        cache,
    };
    let filters = vec![HttpFilterKind::JwtAuthn(Arc::new(config(vec![provider(jwks)], true)))];
    let listener =
        http_listener("in", Direction::Inbound, manager(routes(vec![route("local")]), filters), None);
    plain(snapshot(vec![listener], vec![cluster("local", &[app.address]), cluster("issuer", &[issuer])]))
}

fn bearer(token: &str) -> Option<http::HeaderValue> {
    http::HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).ok()
}

#[tokio::test]
async fn no_forged_token_passes_whatever_the_issuer_does_and_no_good_one_is_lost_while_its_keys_are_known() {
    let app = App::start("reviews").await;
    let signers = [Signer::rsa(), Signer::ec("P-256"), Signer::ed()];
    let strangers = [Signer::rsa(), Signer::ec("P-256"), Signer::ed()];
    let algorithms = ["PS256", "ES256", "EdDSA"];
    let ids = ["0", "1", "2"];
    let keys: Vec<_> = signers.iter().zip(ids).map(|(signer, id)| signer.jwk(id)).collect();
    let keys = json!({ "keys": keys }).to_string();
    let good: Vec<String> = (0..3)
        .map(|at| token(&json!({ "alg": algorithms[at], "kid": ids[at] }), &claims(), &signers[at]))
        .collect();
    let bad: Vec<_> =
        (0..3).flat_map(|at| forged(algorithms[at], ids[at], &signers[at], &strangers[at])).collect();
    assert!(bad.len() >= 240, "{}", bad.len());
    let all_refused = async |proxy: &Proxy, state: &str| {
        let mut client = Client::connect(address(proxy, "in").await).await;
        for (what, token) in &bad {
            let Some(value) = bearer(token) else { continue };
            let mut request = get("/x");
            request.headers_mut().insert("authorization", value);
            let (status, _, _) = client.text(request).await;
            assert!(status == 401 || status == 403, "{what} with the issuer {state}: {status}");
        }
    };
    let ask = async |proxy: &Proxy, token: &str| {
        let mut client = Client::connect(address(proxy, "in").await).await;
        client.text(with(get("/x"), "authorization", &format!("Bearer {token}"))).await.0
    };

    // Up, then away in every manner: what is known is enough.
    let issuer = Issuer::start(keys.clone(), Mode::Up).await;
    let proxy = guarded(&app, issuer.address, Duration::from_secs(600));
    assert_eq!(issuer.asked(), 0, "nothing is fetched before it is needed");
    for token in &good {
        assert_eq!(ask(&proxy, token).await, 200);
    }
    all_refused(&proxy, "up").await;
    assert_eq!(issuer.asked(), 1, "one fetch serves all");
    *issuer.mode.lock() = Mode::Fails;
    for token in &good {
        assert_eq!(ask(&proxy, token).await, 200, "the keys are still good");
    }

    // Never up: nothing is believed, and who brings no token is served as before.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = free.local_addr().unwrap();
    drop(free);
    let mut down = vec![("down".to_owned(), guarded(&app, closed, Duration::from_secs(600)))];
    let mut issuers = Vec::new();
    for mode in [Mode::Fails, Mode::Redirects, Mode::Garbage, Mode::Empty, Mode::Endless, Mode::Stalls] {
        let issuer = Issuer::start(keys.clone(), mode).await;
        down.push((format!("{mode:?}"), guarded(&app, issuer.address, Duration::from_secs(600))));
        issuers.push(issuer);
    }
    for (state, proxy) in &down {
        let begun = Instant::now();
        assert_eq!(ask(proxy, &good[1]).await, 401, "{state}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{state}: a request waits no longer than the fetch may take"
        );
        all_refused(proxy, state).await;
        let mut client = Client::connect(address(proxy, "in").await).await;
        assert_eq!(client.text(get("/x")).await.0, 200, "{state}");
    }
    assert!(app.requests().iter().all(|(_, headers, _)| !headers.contains_key("authorization")));
    // What has come back is believed again, soon.
    *issuers[0].mode.lock() = Mode::Up;
    let deadline = Instant::now() + Duration::from_secs(10);
    while ask(&down[1].1, &good[0]).await != 200 {
        assert!(Instant::now() < deadline, "the keys are not fetched again");
    }
}

#[tokio::test]
async fn keys_are_renewed_before_they_run_out_and_a_key_that_is_gone_stops_working() {
    let app = App::start("reviews").await;
    let signer = Signer::ed();
    let keys = json!({ "keys": [signer.jwk("k")] }).to_string();
    let issuer = Issuer::start(keys, Mode::Up).await;
    let proxy = guarded(&app, issuer.address, Duration::from_millis(400));
    let good = token(&json!({ "alg": "EdDSA", "kid": "k" }), &claims(), &signer);
    let mut client = Client::connect(address(&proxy, "in").await).await;
    let mut ask = async || client.text(with(get("/x"), "authorization", &format!("Bearer {good}"))).await.0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        assert_eq!(ask().await, 200, "no request meets the end of the keys' time");
    }
    assert!((3..=8).contains(&issuer.asked()), "{} fetches in 1.5 s", issuer.asked());
    *issuer.mode.lock() = Mode::Garbage;
    let deadline = Instant::now() + Duration::from_secs(5);
    while ask().await != 401 {
        assert!(Instant::now() < deadline, "keys outlive their time");
    }
}

#[tokio::test]
async fn keys_are_not_fetched_from_where_secrets_of_the_machine_are() {
    let app = App::start("reviews").await;
    let proxy = guarded(&app, "169.254.169.254:80".parse().unwrap(), Duration::from_secs(600));
    let good = token(&json!({ "alg": "EdDSA", "kid": "k" }), &claims(), &Signer::ed());
    let mut client = Client::connect(address(&proxy, "in").await).await;
    assert_eq!(client.text(with(get("/x"), "authorization", &format!("Bearer {good}"))).await.0, 401);
    let config = proxy.shared().config.load_full();
    let totals = &config.clusters["issuer"].usage.totals;
    assert_eq!(totals.upstream_cx_total.load(SeqCst) + totals.upstream_cx_connect_fail.load(SeqCst), 0);
}
