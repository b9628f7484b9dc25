//! HTTP/1.1 and HTTP/2, both ends, over streams in memory. The peer that sends the input goes away after it, so that every
//! connection must end by itself.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use sidecar_http::{Body, Drain, Handler, Limits, ParseError, Reply, h1, h2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::Target;

/// A connection that is open after that has hung.
const PATIENCE: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "h1_request", seeds: requests, run: |input| h1_server(&[input]) },
        Target { name: "h1_request_after_another", seeds: requests, run: |input| h1_server(&[GET, input]) },
        Target {
            name: "h1_request_in_pieces",
            seeds: requests,
            run: |input| h1_server(&input.chunks(7).collect::<Vec<_>>()),
        },
        Target { name: "h1_chunked", seeds: chunked, run: |input| h1_server(&[CHUNKED, input]) },
        Target { name: "h1_response", seeds: responses, run: |input| h1_client(&Method::GET, input) },
        Target {
            name: "h1_response_to_head",
            seeds: responses,
            run: |input| h1_client(&Method::HEAD, input),
        },
        Target {
            name: "h2_connection",
            seeds: || vec![PREFACE.to_vec(), [PREFACE, &frame(1, 5, 1, BLOCK)].concat()],
            run: |input| h2_server(&[input]),
        },
        Target { name: "h2_frames", seeds: frames, run: |input| h2_server(&[PREFACE, input]) },
        Target {
            name: "h2_header_block",
            seeds: || vec![BLOCK.to_vec()],
            run: |input| h2_server(&[PREFACE, &frame(1, 5, 1, input)]),
        },
        Target { name: "h2_server_frames", seeds: answers, run: h2_client },
    ]
}

/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`, and a literal.
const BLOCK: &[u8] = b"\x82\x86\x84\x01\x01a\x40\x01x\x01y";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn requests() -> Vec<Vec<u8>> {
    [
        GET,
        b"POST /a?b HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nConnection: x, close\r\nX: y\r\n\r\nhello",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn chunked() -> Vec<Vec<u8>> {
    [
        &b"5\r\nhello\r\n0\r\n\r\n"[..],
        b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"ffffffffffffff\r\n",
        b"1\r\na\r\n1\r\nb\r\n0\r\n\r\nGET /",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn responses() -> Vec<Vec<u8>> {
    [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\nhello"[..],
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn frames() -> Vec<Vec<u8>> {
    let get = frame(1, 5, 1, BLOCK);
    vec![
        get.clone(),
        [frame(1, 4, 1, BLOCK), frame(0, 1, 1, b"hello")].concat(),
        [frame(1, 1, 1, &BLOCK[..5]), frame(9, 4, 1, &BLOCK[5..])].concat(),
        [get.clone(), frame(3, 0, 1, &[0, 0, 0, 8]), frame(8, 0, 0, &[0, 0, 1, 0]), frame(6, 0, 0, &[7; 8])]
            .concat(),
        [frame(4, 0, 0, &[0, 4, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]), get.clone(), frame(1, 5, 3, BLOCK)].concat(),
        [get, frame(2, 0, 3, &[0, 0, 0, 1, 9]), frame(7, 0, 0, &[0; 8]), frame(0xbe, 0, 0, b"?")].concat(),
    ]
}

fn answers() -> Vec<Vec<u8>> {
    let settings = frame(4, 0, 0, &[]);
    vec![
        [settings.clone(), frame(4, 1, 0, &[]), frame(1, 5, 1, b"\x88")].concat(),
        [settings.clone(), frame(1, 4, 1, b"\x88"), frame(0, 1, 1, b"hello")].concat(),
        [
            settings.clone(),
            frame(1, 4, 1, b"\x48\x03103"),
            frame(1, 4, 1, b"\x88"),
            frame(1, 5, 1, b"\x40\x01x\x01y"),
        ]
        .concat(),
        [settings.clone(), frame(7, 0, 0, &[0; 8])].concat(),
        [settings, frame(5, 4, 1, b"\0\0\0\x02\x82"), frame(3, 0, 1, &[0, 0, 0, 7])].concat(),
    ]
}

/// Reads every body to its end and answers with its length.
struct Reader;

impl Handler for Reader {
    async fn handle(&self, request: Request<Body>) -> Reply {
        let body = request.into_body().collect().await;
        let text = body.map_or_else(|error| error.to_string(), |body| body.to_bytes().len().to_string());
        Reply::new(Response::new(Body::full(text.into_bytes())))
    }

    fn refused(&self, _: ParseError) {}
}

fn limits() -> Rc<Limits> {
    let (head_timeout, linger) = (Duration::from_millis(10), Duration::from_millis(1));
    Rc::new(Limits {
        head_timeout,
        linger,
        idle_timeout: Some(Duration::from_millis(10)),
        ..Limits::default()
    })
}

fn run<F: Future>(work: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// Sends the pieces, ends its side and reads what comes.
async fn attack(mut client: DuplexStream, pieces: &[&[u8]]) {
    for piece in pieces {
        if client.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    // Half closed: the other side may still answer.
    let _ = client.shutdown().await;
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert!(answer.len() < 1 << 22, "{} bytes of answer", answer.len());
}

fn h1_server(pieces: &[&[u8]]) {
    run(async {
        let (client, server) = tokio::io::duplex(1 << 20);
        let drain = Drain::default();
        let serving = h1::serve(Box::new(server), BytesMut::new(), limits(), drain.watch(), &Reader);
        let both = async { tokio::join!(serving, attack(client, pieces)) };
        assert!(tokio::time::timeout(PATIENCE, both).await.is_ok(), "the connection hangs");
    });
}

fn h2_server(pieces: &[&[u8]]) {
    run(async {
        let (client, server) = tokio::io::duplex(1 << 20);
        let drain = Drain::default();
        let serving = h2::serve(Box::new(server), BytesMut::new(), limits(), drain.watch(), Rc::new(Reader));
        let both = async { tokio::join!(serving, attack(client, pieces)) };
        assert!(tokio::time::timeout(PATIENCE, both).await.is_ok(), "the connection hangs");
    });
}

fn h1_client(method: &Method, input: &[u8]) {
    let pieces = [input];
    run(async {
        let (upstream, io) = tokio::io::duplex(1 << 20);
        let request = Request::builder().method(method).uri("/").header("host", "a").body(());
        let Ok(request) = request else { return };
        let exchange = h1::ClientConnection::new(Box::new(io), limits()).send(
            &request.into_parts().0,
            Body::empty(),
            None,
        );
        let asking = async {
            if let Ok(response) = exchange.await {
                // A body that fails is an answer too.
                let _ = response.into_body().collect().await;
            }
        };
        let both = async { tokio::join!(asking, attack(upstream, &pieces)) };
        assert!(tokio::time::timeout(PATIENCE, both).await.is_ok(), "the exchange hangs");
    });
}

fn h2_client(input: &[u8]) {
    let pieces = [input];
    run(async {
        let (upstream, io) = tokio::io::duplex(1 << 20);
        let asking = async {
            let Ok(client) = h2::Client::connect(Box::new(io), &limits()).await else { return };
            let Ok(request) = Request::builder().uri("/").header("host", "a").body(()) else { return };
            if let Ok(response) = client.send(&request.into_parts().0, Body::empty(), false).await {
                let _ = response.into_body().collect().await;
            }
        };
        let both = async { tokio::join!(asking, attack(upstream, &pieces)) };
        assert!(tokio::time::timeout(PATIENCE, both).await.is_ok(), "the exchange hangs");
    });
}
