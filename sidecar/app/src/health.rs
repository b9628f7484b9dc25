//! Readiness, merged metrics and rewritten probes: what the kubelet and Prometheus ask.

use std::net::IpAddr;
use std::sync::Arc;

use base_runtime::http_server::text;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::config::Scrape;
use crate::life::Life;
use crate::merge;
use crate::probes::Probers;

/// What the ports for the cluster need.
pub(crate) struct Health {
    pub(crate) life: Arc<Life>,
    pub(crate) probers: Probers,
    pub(crate) scrape: Option<Scrape>,
    /// Where the application is reached.
    pub(crate) pod: IpAddr,
}

impl Health {
    /// Port 15021.
    pub(crate) fn readiness(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/healthz/ready" => self.ready(),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// Port 15090.
    pub(crate) fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/stats/prometheus" | "/metrics" => merge::response(merge::own(&self.life)),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// Port 15020.
    pub(crate) async fn status(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match path {
            "/healthz/ready" => self.ready(),
            "/stats/prometheus" | "/metrics" => {
                merge::response(merge::merged(&self.life, self.scrape.as_ref(), self.pod).await)
            }
            "/quitquitquit" if request.method() == Method::POST => {
                self.life.quit();
                text(StatusCode::OK, "OK\n")
            }
            _ if path.starts_with("/app-health/") => {
                match self.probers.run(path, self.pod, request.headers()).await {
                    Some((status, body)) => text(status, body),
                    None => text(StatusCode::NOT_FOUND, "no such probe\n"),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        match self.life.not_ready() {
            None => text(StatusCode::OK, ""),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        }
    }
}
