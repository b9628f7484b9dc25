//! Clients that call once or a few times and print what they saw as JSON, one line an answer.

use crate::echo::headers;
use anyhow::Context;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, client::legacy::connect::HttpConnector, rt::TokioExecutor};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Client = legacy::Client<HttpConnector, Full<Bytes>>;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of an answer that `send` prints.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What to call.
#[derive(clap::Args)]
pub struct Get {
    /// What to call.
    url: Uri,
    /// A header, as `name: value`.
    #[arg(short = 'H', long, value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Method of the requests.
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// How many requests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is written `name: value`")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// Calls, one after the other.
pub async fn get(what: Get) {
    let client: Client = legacy::Client::builder(TokioExecutor::new()).build_http();
    for _ in 0..what.count {
        let started = Instant::now();
        let mut line = match tokio::time::timeout(TIMEOUT, once(&client, &what)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => json!({"error": format!("{error:#}")}),
            Err(_) => json!({"error": format!("no answer within {TIMEOUT:?}")}),
        };
        line["millis"] = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).into();
        println!("{line}");
    }
}

async fn once(client: &Client, what: &Get) -> anyhow::Result<Value> {
    let mut request =
        Request::builder().method(what.method.clone()).uri(what.url.clone()).body(Full::default())?;
    for (name, value) in &what.header {
        request.headers_mut().append(name.clone(), value.clone());
    }
    let (head, body) = client.request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(json!({
        "status": head.status.as_u16(), "headers": headers(&head.headers), "body": String::from_utf8_lossy(&body),
    }))
}

/// Sends a text as it is, with `\r` and `\n` for line ends, and prints what comes back until the other side ends or is silent.
pub async fn send(address: &str, text: &str, silence: Duration) {
    let line = match exchange(address, text, silence).await {
        Ok((answer, end)) => json!({"answer": answer, "end": end}),
        Err(error) => json!({"error": format!("{error:#}")}),
    };
    println!("{line}");
}

async fn exchange(address: &str, text: &str, silence: Duration) -> anyhow::Result<(String, String)> {
    let connect = tokio::time::timeout(TIMEOUT, TcpStream::connect(address));
    let mut stream = connect.await.context("connecting takes too long")?.context("connecting")?;
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    stream.write_all(text.as_bytes()).await?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        match tokio::time::timeout(silence, stream.read(&mut buffer)).await {
            Err(_) => break "silence".to_owned(),
            Ok(Ok(0)) => break "closed".to_owned(),
            Ok(Ok(read)) => answer.extend_from_slice(&buffer[..read]),
            Ok(Err(error)) => break error.to_string(),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            break "too long".to_owned();
        }
    };
    Ok((String::from_utf8_lossy(&answer).into_owned(), end))
}
