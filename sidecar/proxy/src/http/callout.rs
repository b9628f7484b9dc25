//! Requests of the sidecar's own to a cluster, whole answers only: for key sets, authorization, rate limits. Bounded in time and bytes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, response};
use http_body::Body as _;
use sidecar_balance::Outcome;
use sidecar_http::Body;
use sidecar_model::cluster::UpstreamProtocol;

use super::attempt;
use super::failure::Failure;
use crate::config::Config;
use crate::pool::Protocol;
use crate::target::{self, Pick, Wanted};
use crate::worker::Worker;

/// A cluster to ask, and how far to go for the answer.
pub(super) struct Callout<'a> {
    pub(super) worker: &'a Worker,
    pub(super) config: &'a Config,
    /// Name of the cluster.
    pub(super) cluster: &'a str,
    /// HTTP/2 whatever the cluster's own protocol is: gRPC.
    pub(super) http2: bool,
    /// For everything, from the connection to the last byte of the answer.
    pub(super) timeout: Duration,
    /// Longest body of an answer.
    pub(super) body_bytes_max: usize,
    /// Where the client's connection was going to, and the client: for clusters that follow it, or tell of it.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
}

/// A whole answer.
pub(super) struct Answered {
    pub(super) parts: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CalloutError {
    /// The cluster is not configured.
    NoCluster,
    /// No endpoint serves, or none may be asked.
    NoEndpoint,
    /// The cluster's limits are reached.
    Overflow,
    /// The exchange failed.
    Failed(Failure),
    /// It took too long.
    Timeout,
    /// The answer is too long.
    TooLong,
}

impl Callout<'_> {
    /// Sends a request; `may_ask` judges the endpoint first.
    pub(super) async fn send(
        &self,
        parts: &Parts,
        body: &Bytes,
        may_ask: impl Fn(&Pick) -> bool,
    ) -> Result<Answered, CalloutError> {
        let exchange = self.exchange(parts, body, may_ask);
        tokio::time::timeout(self.timeout, Box::pin(exchange)).await.unwrap_or(Err(CalloutError::Timeout))
    }

    async fn exchange(
        &self,
        parts: &Parts,
        body: &Bytes,
        may_ask: impl Fn(&Pick) -> bool,
    ) -> Result<Answered, CalloutError> {
        let plan = self.config.clusters.get(self.cluster).ok_or(CalloutError::NoCluster)?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let (local, client) = self.addresses.unwrap_or((nowhere, nowhere));
        let wanted = Wanted {
            worker: self.worker,
            plan,
            local,
            client,
            headers: Some(&parts.headers),
            hash: None,
            previous: &[],
            excluded: &[],
            metadata: [None, None],
            high_priority: false,
        };
        let pick = target::pick(&wanted).filter(may_ask).ok_or(CalloutError::NoEndpoint)?;
        let _permit = attempt::mirror_permit(&pick.target).ok_or(CalloutError::Overflow)?;
        let protocol = match plan.cluster.http.protocol {
            _ if self.http2 => Protocol::Http2,
            UpstreamProtocol::Http2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let report = |outcome| target::report(self.worker, plan, pick.host.as_ref(), outcome);
        match attempt::send_fresh(self.worker, &pick.target, protocol, parts, body).await {
            Ok(response) => {
                report(Outcome::Status(response.status().as_u16()));
                collect(response, self.body_bytes_max).await
            }
            Err(failure) => {
                report(Outcome::LocalFailure);
                Err(CalloutError::Failed(failure))
            }
        }
    }
}

/// Reads an answer to its end.
async fn collect(response: Response<Body>, bytes_max: usize) -> Result<Answered, CalloutError> {
    let (parts, mut body) = response.into_parts();
    let mut whole = BytesMut::new();
    let mut trailers = None;
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(CalloutError::TooLong);
    }
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| CalloutError::Failed(Failure::ConnectionTermination))?;
        match frame.into_data() {
            Ok(data) if whole.len() + data.len() > bytes_max => return Err(CalloutError::TooLong),
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Answered { parts, body: whole.freeze(), trailers })
}

impl Answered {
    pub(super) fn status(&self) -> StatusCode {
        self.parts.status
    }
}
