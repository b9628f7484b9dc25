//! Single probe attempts against a pod's address, dialled from the node's namespace: HTTP, TCP and gRPC.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base_tls::{Client as TlsClient, Material, Rotating, ServerCheck};
use bytes::Bytes;
use cluster_network::NetNs;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How much of an answer is read; the rest is not waited for (Kubernetes reads 10 KiB).
const BODY_BYTES_MAX: usize = 10 << 10;
const USER_AGENT: &str = concat!("kube-probe/", env!("CARGO_PKG_VERSION"));

/// Why an attempt failed, in the words of the event that reports it.
pub(crate) type Failure = String;

/// The number of a port given by number or by the name of one of the container's ports.
pub(crate) fn port(container: &Container, port: &IntOrString) -> Result<u16, Failure> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("couldn't find port: {port:?}"))
}

/// Opens a connection; success is all that counts.
pub(crate) async fn tcp(node: &NetNs, address: SocketAddr, limit: Duration) -> Result<(), Failure> {
    connect(node, address, limit).await.map(drop)
}

async fn connect(node: &NetNs, address: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
    match tokio::time::timeout(limit, node.connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {address}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial tcp {address}: {error}")),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Asks for a page; any status from 200 to 399 is success.
pub(crate) async fn http_get(
    node: &NetNs,
    container: &Container,
    action: &HTTPGetAction,
    ip: IpAddr,
    limit: Duration,
) -> Result<(), Failure> {
    let port = port(container, &action.port)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty());
    let ip = host.and_then(|host| host.parse().ok()).unwrap_or(ip);
    let address = SocketAddr::new(ip, port);
    let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("{}://{address}{path}", if https { "https" } else { "http" });
    let request = request(action, host, address, &path).map_err(|error| format!("Get \"{url}\": {error}"))?;
    let attempt = async {
        let stream = connect(node, address, limit).await?;
        if https {
            let anyone = Rotating::new(Material::trust(None).map_err(|error| error.to_string())?);
            let client = TlsClient::new(&anyone, ServerCheck::Insecure, &[b"http/1.1"]);
            let name = host.map_or_else(|| ip.to_string(), str::to_owned);
            let stream = client.connect(stream, &name).await.map_err(|error| chain(&error))?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
        Err(_) => Err(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn request(
    action: &HTTPGetAction,
    host: Option<&str>,
    address: SocketAddr,
    path: &str,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(
            http::header::HOST,
            host.map_or_else(|| address.to_string(), |host| format!("{host}:{}", address.port())),
        )
        .header(http::header::USER_AGENT, USER_AGENT)
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close")
        .body(Full::default())?;
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::try_from(header.name.as_str())?;
        request.headers_mut().insert(name, HeaderValue::try_from(header.value.as_str())?);
    }
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(|error| chain(&error))?;
    let status = answer.status();
    // The end of a short body is read so that the server sees an orderly close.
    let _rest = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    drop(driver);
    Ok(status)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> Failure {
    base_types::ErrorChain(error).to_string()
}

/// Asks the gRPC health service (`grpc.health.v1.Health/Check`) whether `service` is serving.
pub(crate) async fn grpc(
    node: &NetNs,
    address: SocketAddr,
    service: &str,
    limit: Duration,
) -> Result<(), Failure> {
    let attempt = async {
        let stream = connect(node, address, limit).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| chain(&error))?;
        let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .header(http::header::USER_AGENT, USER_AGENT)
            .body(Full::new(health_request(service)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let refused = answer.headers().get("grpc-status").filter(|status| status.as_bytes() != b"0").cloned();
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        drop(driver);
        let code = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned().or(refused);
        if let Some(code) = code.filter(|code| code.as_bytes() != b"0") {
            return Err(format!(
                "error: health rpc probe failed: status {}",
                code.to_str().unwrap_or("unknown")
            ));
        }
        if is_serving(&body.to_bytes()) {
            Ok(())
        } else {
            Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned())
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!("timeout: health rpc did not complete within {limit:?}")),
    }
}

/// A gRPC frame around `HealthCheckRequest { service }` (field 1, a string).
fn health_request(service: &str) -> Bytes {
    let name = &service.as_bytes()[..service.len().min(127)];
    let length = u8::try_from(name.len()).unwrap_or(0);
    let mut message = Vec::new();
    if length > 0 {
        message.extend([0x0a, length]);
        message.extend(name);
    }
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(0)];
    frame.extend(message);
    frame.into()
}

/// Whether a gRPC frame holds `HealthCheckResponse { status: SERVING }` (field 1, value 1).
fn is_serving(frame: &[u8]) -> bool {
    frame.get(5..).is_some_and(|message| message.windows(2).next() == Some(&[0x08, 0x01]))
}

#[cfg(test)]
mod tests;
