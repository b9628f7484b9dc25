//! Connections that the server opens: to webhooks and kubelets, through the dialer, over TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base_tls::{Client, TlsStream};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::seq::IndexedRandom as _;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{
    api::Api,
    authn::tokens::lookup,
    object::{self, integer, items, text},
};

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What the server's certificate must prove.
    pub(crate) server_name: String,
    pub(crate) path_and_query: String,
}

/// A ready endpoint of a Service.
///
/// # Errors
/// When there is none.
pub(crate) fn service(
    api: &Api,
    namespace: &str,
    name: &str,
    port: i64,
    path: &str,
) -> Result<Target, String> {
    let service =
        lookup(api, "services", namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
    let entry = items(&service, "/spec/ports").iter().find(|p| integer(p, "/port") == Some(port));
    let entry = entry.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = text(entry, "/name");
    let Some(kind) = api.kinds.get("discovery.k8s.io", "v1", "endpointslices") else {
        return Err("endpoint slices are not served".to_owned());
    };
    let page =
        api.store.list(&kind.prefix_in(namespace), None, 0, None).map_err(|error| error.to_string())?;
    let mut candidates = Vec::new();
    for slice in page.items.iter().filter_map(|kv| object::decode(kv).ok()) {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] == name {
            candidates.extend(endpoints(&slice, port_name));
        }
    }
    let address = candidates.choose(&mut rand::rng()).copied();
    let address = address.ok_or_else(|| format!("no endpoints available for service {name:?}"))?;
    Ok(Target { address, server_name: format!("{name}.{namespace}.svc"), path_and_query: path.to_owned() })
}

fn endpoints(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let port = items(slice, "/ports").iter().find(|p| text(p, "/name") == port_name);
    let Some(port) = port.and_then(|p| integer(p, "/port")).and_then(|p| u16::try_from(p).ok()) else {
        return Vec::new();
    };
    items(slice, "/endpoints")
        .iter()
        .filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)))
        .flat_map(|endpoint| items(endpoint, "/addresses"))
        .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

/// The target of an URL: an address, `localhost`, or a Service's name. Other names would have to be asked outside the cluster.
///
/// # Errors
/// When the URL cannot be used.
pub(crate) fn url(api: &Api, text: &str) -> Result<Target, String> {
    let uri: http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err("the URL must begin with https".to_owned());
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let address = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) if host == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Err(_) => {
            let mut labels = host.split('.');
            if let (Some(name), Some(namespace), Some("svc")) = (labels.next(), labels.next(), labels.next())
            {
                return service(api, namespace, name, i64::from(port), &path);
            }
            return Err(format!("{host} is not known inside the cluster"));
        }
    };
    Ok(Target { address: SocketAddr::new(address, port), server_name: host, path_and_query: path })
}

/// Opens a TLS connection. The caller bounds the time.
///
/// # Errors
/// Why not, for the user.
pub(crate) async fn connect(
    api: &Api,
    client: &Client,
    address: SocketAddr,
    server_name: &str,
) -> Result<TokioIo<TlsStream<TcpStream>>, String> {
    let stream = api.dialer.dial(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
    let stream = client.connect(stream, server_name).await;
    stream.map(TokioIo::new).map_err(|error| format!("{}", base_types::ErrorChain(&error)))
}

/// Posts JSON and reads the answer; anything but 200 is an error.
///
/// # Errors
/// Why not, for the user.
pub(crate) async fn post(
    api: &Api,
    client: &Client,
    target: &Target,
    body: String,
    answer_bytes_max: usize,
) -> Result<Bytes, String> {
    let io = connect(api, client, target.address, &target.server_name).await?;
    let (mut sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let request = Request::post(&target.path_and_query)
        .header(header::HOST, &target.server_name)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), answer_bytes_max).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if status == http::StatusCode::OK {
            return Ok(body);
        }
        let text: String = String::from_utf8_lossy(&body).chars().take(256).collect();
        Err(format!("the server answered {status}: {text}"))
    };
    let result = exchange.await;
    driver.abort();
    result
}
