//! What a server connection does with good requests.

use std::rc::Rc;

use bytes::BytesMut;
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Echo, run, serve_one, talk};
use crate::body::Body;
use crate::drain::Drain;
use crate::error::ParseError;
use crate::limits::Limits;
use crate::serve::{Handler, Reply, Served};

const PIPELINE: &[u8] = b"POST /a HTTP/1.1\r\nHost: one\r\nContent-Length: 5\r\n\r\nhello\
    POST /b?q=1 HTTP/1.1\r\nhost: two:80\r\nTransfer-Encoding: Chunked\r\nX-A: 1\r\n\r\n\
    5;ext=\"v\"\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 9\r\n\r\n\
    \r\nGET http://three/c HTTP/1.1\r\nHost: other\r\nConnection: close, x-gone\r\nX-Gone: 1\r\n\r\n";

fn pipeline_answers(pieces: &[&[u8]]) -> Vec<String> {
    let echo = Echo::default();
    let (_, served) = run(talk(pieces, &echo));
    assert_eq!(served, Served::Closed);
    assert!(echo.refused.borrow().is_empty());
    echo.requests.take()
}

#[test]
fn requests_are_served_in_order() {
    let requests = pipeline_answers(&[PIPELINE]);
    assert_eq!(
        requests,
        [
            "POST /a\ncontent-length: 5\nhost: one\nhello",
            "POST /b?q=1\nhost: two:80\nx-a: 1\nhello world\ntrailer x-sum: 9",
            "GET /c\nhost: three\n",
        ]
    );
}

#[test]
fn any_split_of_the_input_gives_the_same_requests() {
    let whole = pipeline_answers(&[PIPELINE]);
    for at in 1..PIPELINE.len() {
        assert_eq!(pipeline_answers(&[&PIPELINE[..at], &PIPELINE[at..]]), whole, "split at {at}");
    }
    let bytes: Vec<&[u8]> = PIPELINE.chunks(1).collect();
    assert_eq!(pipeline_answers(&bytes), whole);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_reach_the_handler_whole_nor_panic(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        let echo = Echo::default();
        run(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let task = tokio::task::spawn_local(serve_one(server, echo.clone()));
            client.write_all(&input).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            task.await.unwrap();
        });
    }

    #[test]
    fn mutated_requests_never_panic(at in 0..PIPELINE.len(), byte in any::<u8>(), cut in 0..PIPELINE.len()) {
        let mut input = PIPELINE.to_vec();
        input[at] = byte;
        input.truncate(cut.max(1));
        let echo = Echo::default();
        run(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let task = tokio::task::spawn_local(serve_one(server, echo.clone()));
            client.write_all(&input).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            task.await.unwrap();
        });
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_keep() {
    let echo = Echo::default();
    let (answer, _) = run(talk(&[b"GET / HTTP/1.0\r\n\r\n"], &echo));
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    let two = b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n";
    let (answer, _) = run(talk(&[two], &echo));
    assert!(answer.contains("connection: keep-alive\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn head_responses_have_no_body() {
    let echo = Echo::default();
    let (answer, _) = run(talk(&[b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"], &echo));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 15"), "{head}");
    assert!(body.is_empty());
}

#[test]
fn continue_is_sent_when_the_body_is_read() {
    run(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let task = tokio::task::spawn_local(serve_one(server, Echo::default()));
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut interim = [0; 25];
        client.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hi").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("hi"), "{answer}");
        assert!(!answer.contains("expect"));
        task.await.unwrap();
    });
}

/// Answers without reading the request.
struct Deaf;

impl Handler for Deaf {
    async fn handle(&self, _request: Request<Body>) -> Reply {
        let mut response = Response::new(Body::full("no"));
        *response.status_mut() = StatusCode::FORBIDDEN;
        Reply::new(response)
    }

    fn refused(&self, _error: ParseError) {}
}

#[test]
fn an_unread_body_closes_the_connection_or_is_read_over() {
    run(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let task = tokio::task::spawn_local(async move {
            let drain = Drain::default();
            let limits = Rc::new(Limits::default());
            crate::h1::serve(Box::new(server), BytesMut::new(), limits, drain.watch(), &Deaf).await
        });
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await.unwrap();
        let mut answer = vec![0; 1024];
        let length = client.read(&mut answer).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer[..length]).contains("connection: close"));
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\nbody").await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("connection: close"), "{rest}");
        assert_eq!(task.await.unwrap(), Served::Closed);
    });
}

#[test]
fn drain_closes_idle_connections_at_once() {
    run(async {
        let drain = Drain::default();
        let (mut client, server) = tokio::io::duplex(1024);
        let watch = drain.watch();
        let task = tokio::task::spawn_local(async move {
            crate::h1::serve(Box::new(server), BytesMut::new(), Rc::new(Limits::default()), watch, &Deaf)
                .await
        });
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        assert!(client.read(&mut answer).await.unwrap() > 0);
        assert_eq!(drain.open(), 1);
        drain.start();
        assert_eq!(task.await.unwrap(), Served::Closed);
        assert_eq!(drain.open(), 0);
    });
}
