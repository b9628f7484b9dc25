//! Both ends over in-memory streams, and a hostile client by hand.

use std::rc::Rc;

use bytes::BytesMut;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::{JoinHandle, spawn_local};

use super::{Client, PREFACE, serve};
use crate::body::Body;
use crate::drain::Drain;
use crate::h1::tests::{Echo, run};
use crate::limits::Limits;
use crate::serve::Served;

fn server(echo: &Echo, drain: &Drain) -> (DuplexStream, JoinHandle<Served>) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let (watch, handler) = (drain.watch(), Rc::new(echo.clone()));
    let task = spawn_local(serve(Box::new(far), BytesMut::new(), Rc::new(Limits::default()), watch, handler));
    (near, task)
}

fn request(path: &str) -> http::request::Parts {
    let request = Request::builder().method("POST").uri(path).header("host", "a:80").header("x-b", "1");
    request.body(()).unwrap().into_parts().0
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[test]
fn both_ends_understand_each_other() {
    run(async {
        let echo = Echo::default();
        let (stream, _task) = server(&echo, &Drain::default());
        let mut client = Client::connect(Box::new(stream), &Limits::default()).await.unwrap();
        for round in 0..3 {
            let body = Body::full("hello ".repeat(50_000));
            let response = client.send(&request(&format!("/{round}?q")), body, true).await.unwrap();
            assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
            assert!(response.headers().contains_key("date"));
            let text = text(response).await;
            assert!(
                text.starts_with(&format!(
                    "POST /{round}?q\ncontent-length: 300000\nhost: a:80\nx-b: 1\nhello"
                )),
                "{}",
                &text[..80]
            );
            assert_eq!(client.active(), 0);
        }
        assert!(client.is_usable());
        assert_eq!(client.exchanges(), 3);
    });
}

#[test]
fn a_drain_says_goaway_and_the_client_sees_it() {
    run(async {
        let (echo, drain) = (Echo::default(), Drain::default());
        let (stream, task) = server(&echo, &drain);
        let mut client = Client::connect(Box::new(stream), &Limits::default()).await.unwrap();
        let response = client.send(&request("/"), Body::empty(), false).await.unwrap();
        text(response).await;
        drain.start();
        let served = task.await.unwrap();
        assert_eq!(served, Served::Closed);
        for _ in 0..100 {
            if !client.is_usable() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the client still thinks the connection usable");
    });
}

#[test]
fn crumbs_are_joined_and_contradictions_refused() {
    run(async {
        let echo = Echo::default();
        let (stream, _task) = server(&echo, &Drain::default());
        let (mut send, connection) = ::h2::client::handshake(stream).await.unwrap();
        spawn_local(connection);
        let mut ask = async |change: &dyn Fn(&mut Request<()>)| {
            let mut request = Request::builder().uri("http://a/x").body(()).unwrap();
            change(&mut request);
            futures::future::poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            response.await.map(|response| response.status().as_u16())
        };
        let crumbs = ask(&|request| {
            request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
            request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
        });
        assert_eq!(crumbs.await.unwrap(), 200);
        assert!(echo.requests.borrow()[0].contains("cookie: a=1; b=2\n"), "{:?}", echo.requests);
        let other_host = ask(&|request| {
            request.headers_mut().insert("host", HeaderValue::from_static("b"));
        });
        assert_eq!(other_host.await.unwrap(), 400);
        let many = ask(&|request| {
            for _ in 0..101 {
                request.headers_mut().append("x", HeaderValue::from_static("y"));
            }
        });
        assert_eq!(many.await.unwrap(), 431);
        let large = ask(&|request| {
            let value = HeaderValue::from_bytes(&vec![b'y'; 61 * 1024]).unwrap();
            request.headers_mut().insert("x", value);
        });
        assert!(!matches!(large.await, Ok(200)), "more than 60 KiB of headers");
        assert_eq!(ask(&|_| {}).await.unwrap(), 200, "the connection lives");
        assert_eq!(echo.requests.borrow().len(), 2);
    });
}

/// Sends the preface, settings, and then `frame` many times; true if the server closed the connection.
async fn flood(frame: &[u8], count: usize) -> bool {
    let echo = Echo::default();
    let (mut stream, task) = server(&echo, &Drain::default());
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let (mut answers, mut stream) = tokio::io::split(stream);
    let mut sink = vec![0; 64 * 1024];
    for _ in 0..count {
        let sent = tokio::select! {
            sent = stream.write_all(frame) => sent.is_ok(),
            read = answers.read(&mut sink) => read.is_ok_and(|bytes| bytes > 0),
        };
        tokio::task::yield_now().await;
        if !sent || task.is_finished() {
            return true;
        }
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    task.is_finished()
}

#[test]
fn floods_of_control_frames_close_the_connection() {
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let priority = [0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    let unknown = [0, 0, 0, 0xbe, 0, 0, 0, 0, 0];
    for (name, frame) in [
        ("PING", &ping[..]),
        ("SETTINGS", &settings),
        ("WINDOW_UPDATE", &window),
        ("PRIORITY", &priority),
        ("unknown", &unknown),
    ] {
        assert!(run(flood(frame, 3000)), "{name}");
        assert!(!run(flood(frame, 100)), "{name}: a few are not a flood");
    }
}

#[test]
fn a_large_transfer_is_no_flood() {
    run(async {
        let echo = Echo::default();
        let (stream, _task) = server(&echo, &Drain::default());
        let client = Client::connect(Box::new(stream), &Limits::default()).await.unwrap();
        let body = Body::full("hello ".repeat(20_000_000 / 6));
        let response = client.send(&request("/"), body, true).await.unwrap();
        assert!(text(response).await.len() > 19_000_000);
    });
}

#[test]
fn rapid_resets_close_the_connection() {
    let closed = run(async {
        let echo = Echo::default();
        let (mut stream, task) = server(&echo, &Drain::default());
        let mut bytes = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        for id in (1u32..4000).step_by(2) {
            bytes.extend([0, 0, 6, 1, 5]);
            bytes.extend(id.to_be_bytes());
            // GET http / with the authority `a`, in HPACK.
            bytes.extend([0x82, 0x86, 0x84, 0x41, 1, b'a']);
            bytes.extend([0, 0, 4, 3, 0]);
            bytes.extend(id.to_be_bytes());
            bytes.extend([0, 0, 0, 8]);
        }
        stream.write_all(&bytes).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        task.is_finished()
    });
    assert!(closed);
}

#[test]
fn garbage_after_the_preface_is_refused() {
    run(async {
        let echo = Echo::default();
        let (mut stream, task) = server(&echo, &Drain::default());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(task.await.unwrap(), Served::Failed);
        let (mut stream, task) = server(&echo, &Drain::default());
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&[0xff; 64]).await.unwrap();
        assert_ne!(task.await.unwrap(), Served::Upgraded);
        assert!(echo.requests.borrow().is_empty());
    });
}
