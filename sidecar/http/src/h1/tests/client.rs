//! What a client connection does with responses, good and hostile.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::run;
use crate::body::{Body, BodyError};
use crate::error::SendError;
use crate::h1::{ClientConnection, Returner};
use crate::limits::Limits;

#[derive(Default)]
struct Shelf(RefCell<Vec<ClientConnection>>);

impl Returner for Shelf {
    fn idle(&self, connection: ClientConnection) {
        self.0.borrow_mut().push(connection);
    }
}

fn connection() -> (ClientConnection, DuplexStream) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    (ClientConnection::new(Box::new(near), Rc::new(Limits::default())), far)
}

async fn exchange(
    method: Method,
    response: &[u8],
) -> (Result<(StatusCode, Result<Bytes, BodyError>), SendError>, usize) {
    let (connection, mut far) = connection();
    let shelf = Rc::new(Shelf::default());
    let parts =
        Request::builder().method(method).uri("/x").header("host", "a").body(()).unwrap().into_parts().0;
    let exchange = connection.send(&parts, Body::empty(), Some(shelf.clone()));
    let serve = async {
        let mut head = [0; 1024];
        let length = far.read(&mut head).await.unwrap();
        assert!(head[..length].ends_with(b"\r\n\r\n"));
        far.write_all(response).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (answer, ()) = tokio::join!(exchange, serve);
    let result = match answer {
        Err(error) => Err(error),
        Ok(response) => {
            let status = response.status();
            Ok((status, response.into_body().collect().await.map(|body| body.to_bytes())))
        }
    };
    let shelved = shelf.0.borrow().len();
    (result, shelved)
}

#[test]
fn good_responses_give_the_connection_back() {
    for (response, body) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], "hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", ""),
    ] {
        let (answer, shelved) = run(exchange(Method::GET, response));
        assert_eq!(answer.unwrap().1.unwrap(), body.as_bytes());
        assert_eq!(shelved, 1, "{:?}", String::from_utf8_lossy(response));
    }
}

#[test]
fn closing_responses_do_not() {
    for response in [
        &b"HTTP/1.1 200 OK\r\n\r\nhello"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let (answer, shelved) = run(exchange(Method::GET, response));
        assert_eq!(answer.unwrap().1.unwrap(), "hello");
        assert_eq!(shelved, 0);
    }
    let (answer, shelved) = run(exchange(
        Method::GET,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
    ));
    assert_eq!(answer.unwrap().1.unwrap(), "hello");
    assert_eq!(shelved, 0, "bytes after the response");
}

#[test]
fn hostile_responses_are_refused() {
    for response in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"garbage\r\n\r\n",
    ] {
        let (answer, shelved) = run(exchange(Method::GET, response));
        assert!(
            matches!(answer, Err(SendError::Protocol(_))),
            "{:?}: {answer:?}",
            String::from_utf8_lossy(response)
        );
        assert_eq!(shelved, 0);
    }
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
    assert!(matches!(run(exchange(Method::GET, &endless)).0, Err(SendError::Protocol(_))));
}

#[test]
fn early_ends_are_told_apart() {
    assert!(matches!(run(exchange(Method::GET, b"")).0, Err(SendError::Closed)));
    assert!(matches!(run(exchange(Method::GET, b"HTTP/1.1 2")).0, Err(SendError::Truncated)));
    let short = run(exchange(Method::GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")).0;
    assert!(matches!(short.unwrap().1, Err(BodyError::Incomplete)));
    let (head, shelved) = run(exchange(Method::HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"));
    assert_eq!(head.unwrap().1.unwrap(), "");
    assert_eq!(shelved, 1);
}

#[test]
fn an_early_response_is_delivered_while_the_request_is_still_sent() {
    run(async {
        let (connection, mut far) = connection();
        let (_upstream_never_ends, body) = endless();
        let parts = Request::builder()
            .method(Method::POST)
            .uri("/x")
            .header("host", "a")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let exchange = connection.send(&parts, body, None);
        far.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
        let response = exchange.await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "big");
    });
}

/// The server's end of a request whose body never ends.
fn endless() -> (DuplexStream, Body) {
    let (near, far) = tokio::io::duplex(1024);
    let shared = crate::h1::incoming::Shared {
        transport: crate::h1::transport::Transport::new(Box::new(near), bytes::BytesMut::from(&b"some"[..])),
        reading: crate::h1::incoming::Reading::Length(1_000_000),
        continue_due: false,
        abandoned: false,
    };
    (far, Body::request(crate::h1::RequestBody::new(Rc::new(RefCell::new(shared)))))
}

#[test]
fn an_idle_connection_that_was_closed_is_not_usable() {
    run(async {
        let (mut near, far) = connection();
        assert!(near.is_usable());
        drop(far);
        assert!(!near.is_usable());
    });
}

#[test]
fn the_servers_own_limit_for_idle_connections_is_known() {
    run(async {
        let (connection, mut far) = connection();
        let shelf = Rc::new(Shelf::default());
        let parts = Request::builder().uri("/x").header("host", "a").body(()).unwrap().into_parts().0;
        let exchange = connection.send(&parts, Body::empty(), Some(shelf.clone()));
        far.write_all(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        let response = exchange.await.unwrap();
        assert!(!response.headers().contains_key("keep-alive"));
        assert_eq!(shelf.0.borrow()[0].idle_limit(), Some(std::time::Duration::from_secs(5)));
    });
}
