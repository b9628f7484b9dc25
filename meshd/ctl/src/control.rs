//! The control socket of the cluster process: HTTP and JSON over a socket file.

use crate::failure::{Exit, Failure, Outcome};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{path::Path, time::Duration};
use tokio::net::UnixStream;

/// One call; an answer that is not 2xx is a failure with the text that came.
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
    within: Duration,
) -> Outcome<Value> {
    let exchange = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request =
            Request::builder().method(method).uri(path).header("host", "cluster").body(Full::new(body))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        anyhow::Ok((head.status, body.collect().await?.to_bytes()))
    };
    let (status, body) = match tokio::time::timeout(within, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unreachable(socket, &format!("{error:#}"))),
        Err(_) => {
            return Err(Failure::new(
                Exit::TimedOut,
                format!("no answer from {} within {within:?}", socket.display()),
            ));
        }
    };
    let text = String::from_utf8_lossy(&body);
    if !status.is_success() {
        let message =
            serde_json::from_str::<Value>(&text).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
        return Err(Failure::new(
            Exit::Failed,
            message.unwrap_or_else(|| format!("the cluster answered {status}: {text}")),
        ));
    }
    if status == StatusCode::NO_CONTENT || text.trim().is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_str(&text)?)
}

/// What the cluster process says of itself; `None` when none runs.
pub async fn status(socket: &Path) -> Outcome<Option<Value>> {
    match call(socket, Method::GET, "/status", Bytes::new(), Duration::from_secs(5)).await {
        Ok(status) => Ok(Some(status)),
        Err(failure) if failure.exit == Exit::Unreachable => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn unreachable(socket: &Path, reason: &str) -> Failure {
    Failure::new(Exit::Unreachable, format!("no cluster answers on {}: {reason}", socket.display()))
        .fix("meshctl up starts one")
}
