//! Frames and ports, and attempts against real servers on loopback: as root, for sockets are made inside a namespace.

use std::convert::Infallible;

use base_tls::{CertificateAuthority, ClientAuth, LeafProfile, Server};
use http::Response;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn container() -> Container {
    serde_json::from_value(json!({"name": "a", "ports": [{"name": "http", "containerPort": 8080}]})).unwrap()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn ports_by_number_and_name() {
    let container = container();
    assert_eq!(port(&container, &IntOrString::Int(80)), Ok(80));
    assert_eq!(port(&container, &IntOrString::String("http".into())), Ok(8080));
    assert!(port(&container, &IntOrString::String("none".into())).is_err());
    assert!(port(&container, &IntOrString::Int(70000)).is_err());
}

#[test]
fn grpc_frames() {
    assert_eq!(health_request("")[..], [0, 0, 0, 0, 0]);
    assert_eq!(health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
    assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 2]) && !is_serving(&[0, 0, 0, 0, 0]) && !is_serving(&[]));
}

/// Serves when asked for service `good`, does not for `bad`, and knows no other.
async fn health(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let (status, answer): (&str, &[u8]) = match &asked[..] {
        asked if asked.ends_with(b"good") => ("0", &[0, 0, 0, 0, 2, 8, 1]),
        asked if asked.ends_with(b"bad") => ("0", &[0, 0, 0, 0, 2, 8, 2]),
        _ => ("5", &[]),
    };
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let frames = [Ok(Frame::data(Bytes::copy_from_slice(answer))), Ok(Frame::trailers(trailers))];
    Ok(Response::new(StreamBody::new(futures::stream::iter(frames))))
}

#[tokio::test]
async fn grpc_services_are_asked() {
    let node = NetNs::current().unwrap();
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(health)));
        }
    });
    assert_eq!(grpc(&node, address, "good", LIMIT).await, Ok(()));
    assert!(grpc(&node, address, "bad", LIMIT).await.unwrap_err().contains("NOT_SERVING"));
    assert!(grpc(&node, address, "none", LIMIT).await.unwrap_err().contains("status 5"));
}

#[tokio::test]
async fn https_is_asked_without_checking_the_certificate() {
    let node = NetNs::current().unwrap();
    let authority = CertificateAuthority::generate("nobody", "nobody", Duration::from_secs(60)).unwrap();
    let profile = LeafProfile { server: true, lifetime: Duration::from_secs(60), ..LeafProfile::default() };
    let issued = authority.issue(&profile).unwrap();
    let identity = Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, None).unwrap());
    let tls = Server::new(&identity, ClientAuth::None, &[b"http/1.1"]);
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = tls.accept(stream).await.unwrap();
            let service = service_fn(async |request: Request<Incoming>| {
                let code = if request.headers().contains_key("x-wanted") { 204 } else { 500 };
                Response::builder().status(code).body(Full::<Bytes>::default())
            });
            let _closed = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    let action = |headers: serde_json::Value| -> HTTPGetAction {
        serde_json::from_value(json!({"scheme": "HTTPS", "port": address.port(), "httpHeaders": headers}))
            .unwrap()
    };
    let wanted = action(json!([{"name": "X-Wanted", "value": "1"}]));
    assert_eq!(http_get(&node, &container(), &wanted, address.ip(), LIMIT).await, Ok(()));
    let failure = http_get(&node, &container(), &action(json!([])), address.ip(), LIMIT).await;
    assert_eq!(failure, Err("HTTP probe failed with statuscode: 500".into()));
}

#[tokio::test]
async fn silence_and_refusal_are_failures() {
    let node = NetNs::current().unwrap();
    let (silent, address) = listener().await;
    let action: HTTPGetAction = serde_json::from_value(json!({"port": address.port()})).unwrap();
    let failure =
        http_get(&node, &container(), &action, address.ip(), Duration::from_millis(50)).await.unwrap_err();
    assert!(failure.contains("context deadline exceeded"), "{failure}");
    drop(silent);
    let failure = tcp(&node, address, LIMIT).await.unwrap_err();
    assert_eq!(failure, format!("dial tcp {address}: connect: connection refused"));
}
