//! Probes of the application that the injector pointed at us: we ask the application and pass its answer on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base_types::ErrorChain;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use crate::fetch::{self, Question, Scheme};

/// The probes by path, as in Istio's `ISTIO_KUBE_APP_PROBERS`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Probers(BTreeMap<String, Prober>);

/// One probe.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prober {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Clone, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Debug, Clone, Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

impl Probers {
    /// Runs the probe of a path against the application at `address`; none if there is no such probe.
    pub(crate) async fn run(
        &self,
        path: &str,
        address: IpAddr,
        caller: &HeaderMap,
    ) -> Option<(StatusCode, Bytes)> {
        let prober = self.0.get(path)?;
        let limit = Duration::from_secs(prober.timeout_seconds.max(1));
        Some(prober.run(address, limit, caller).await)
    }
}

impl Prober {
    async fn run(&self, address: IpAddr, limit: Duration, caller: &HeaderMap) -> (StatusCode, Bytes) {
        if let Some(get) = &self.http_get {
            return get.run(address, limit, caller).await;
        }
        if let Some(tcp) = &self.tcp_socket {
            let target = SocketAddr::new(address, tcp.port);
            return match timeout(limit, fetch::connect(target)).await {
                Ok(Ok(_)) => (StatusCode::OK, Bytes::new()),
                Ok(Err(error)) => failed(&error),
                Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "timeout".into()),
            };
        }
        match &self.grpc {
            Some(grpc) => grpc.run(address, limit).await,
            None => (StatusCode::INTERNAL_SERVER_ERROR, "the probe has no action".into()),
        }
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> (StatusCode, Bytes) {
    (StatusCode::INTERNAL_SERVER_ERROR, ErrorChain(error).to_string().into())
}

impl HttpGet {
    async fn run(&self, address: IpAddr, limit: Duration, caller: &HeaderMap) -> (StatusCode, Bytes) {
        let mut headers = HeaderMap::new();
        if let Some(agent) = caller.get(http::header::USER_AGENT) {
            headers.insert(http::header::USER_AGENT, agent.clone());
        }
        for header in &self.http_headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(&header.name), HeaderValue::try_from(&header.value))
            {
                headers.append(name, value);
            }
        }
        let path = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let scheme = if self.scheme.eq_ignore_ascii_case("https") { Scheme::Https } else { Scheme::Http };
        let address = SocketAddr::new(address, self.port);
        match fetch::ask(Question { scheme, address, path, headers, body: Bytes::new(), limit }).await {
            // The kubelet judges the status; a long body is of no use to it.
            Ok(answer) => (answer.status(), answer.body().slice(..answer.body().len().min(10 * 1024))),
            Err(error) => failed(&error),
        }
    }
}

impl Grpc {
    /// `grpc.health.v1.Health/Check`: 1 is SERVING.
    async fn run(&self, address: IpAddr, limit: Duration) -> (StatusCode, Bytes) {
        let service = self.service.as_deref().unwrap_or_default().as_bytes();
        let mut body = BytesMut::new();
        let Ok(length) = u8::try_from(service.len()) else {
            return (StatusCode::INTERNAL_SERVER_ERROR, "the service's name is too long".into());
        };
        let message = if service.is_empty() { Vec::new() } else { [&[0x0a, length], service].concat() };
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap_or_default());
        body.put_slice(&message);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        let address = SocketAddr::new(address, self.port);
        let path = "/grpc.health.v1.Health/Check".to_owned();
        let question = Question { scheme: Scheme::Http2, address, path, headers, body: body.freeze(), limit };
        match fetch::ask(question).await {
            Ok(answer) if answer.body().ends_with(&[0x08, 1]) => (StatusCode::OK, Bytes::new()),
            Ok(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not serving".into()),
            Err(error) => failed(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_applications_answer_is_passed_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = tokio::spawn(async move {
            let (mut stream, peer) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy")
                .await
                .unwrap();
            (String::from_utf8_lossy(&request[..length]).to_lowercase(), peer)
        });
        let json = format!(
            r#"{{"/app-health/a/readyz":{{"httpGet":{{"path":"health","port":{port},"httpHeaders":[{{"name":"X-A","value":"b"}}]}}}},
                "/app-health/a/livez":{{"tcpSocket":{{"port":{port}}}}}}}"#
        );
        let probers: Probers = serde_json::from_str(&json).unwrap();
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let (status, body) = probers.run("/app-health/a/readyz", loopback, &HeaderMap::new()).await.unwrap();
        assert_eq!((status.as_u16(), &body[..]), (503, &b"busy"[..]));
        let (request, peer) = app.await.unwrap();
        assert!(request.starts_with("get /health http/1.1\r\n") && request.contains("x-a: b"), "{request}");
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 6]));
        assert!(probers.run("/app-health/b/readyz", loopback, &HeaderMap::new()).await.is_none());
        let (status, _) = probers.run("/app-health/a/livez", loopback, &HeaderMap::new()).await.unwrap();
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "nobody listens any more");
    }
}
