//! The admin port, on loopback only: what the proxy was told and what it does with it.

use std::sync::Arc;

use base_runtime::http_server::{json, text};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use crate::life::Life;
use crate::merge;

/// Paths that may be asked for, for people.
const HELP: &str = "GET  /certs /clusters /config_dump /listeners /logging /ready /server_info /stats /stats/prometheus\n\
                    POST /drain /quitquitquit\n";

/// The admin port.
pub(crate) struct Admin {
    pub(crate) life: Arc<Life>,
    pub(crate) node_id: String,
    pub(crate) log_level: String,
}

impl Admin {
    /// Answers a request.
    pub(crate) fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let ok = |body: String| text(StatusCode::OK, body);
        let shared = self.life.proxy.shared();
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/drain" | "/drain_listeners" | "/healthcheck/fail") => {
                self.life.drain();
                ok("OK\n".to_owned())
            }
            (&Method::POST, "/quitquitquit") => {
                self.life.quit();
                ok("OK\n".to_owned())
            }
            (&Method::GET, "/" | "/help") => ok(HELP.to_owned()),
            (&Method::GET, "/ready") => match self.life.not_ready() {
                None => ok("LIVE\n".to_owned()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("PRE_INITIALIZING: {why}\n")),
            },
            (&Method::GET, "/config_dump") => self.config_dump(),
            (&Method::GET, "/clusters") => ok(sidecar_proxy::stats::clusters(shared)),
            (&Method::GET, "/listeners") => ok(self.listeners()),
            (&Method::GET, "/stats") => ok(sidecar_proxy::stats::text(shared)),
            (&Method::GET, "/stats/prometheus") => merge::response(merge::own(&self.life)),
            (&Method::GET, "/certs") => {
                json(StatusCode::OK, json!(self.life.status.view().certificate).to_string())
            }
            (&Method::GET, "/logging") => ok(format!("level: {}\n", self.log_level)),
            (&Method::GET, "/server_info") => self.server_info(),
            (_, "/drain" | "/quitquitquit") => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
            _ => text(StatusCode::NOT_FOUND, HELP),
        }
    }

    /// Everything the proxy was told, keys left out.
    fn config_dump(&self) -> Response<Full<Bytes>> {
        let config = self.life.proxy.shared().config.load();
        let Ok(serde_json::Value::Object(mut dump)) = serde_json::to_value(&*config.snapshot) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the configuration cannot be shown\n");
        };
        dump.insert("node".to_owned(), json!(self.node_id));
        dump.insert("discovery".to_owned(), json!(self.life.status.view()));
        match serde_json::to_string_pretty(&dump) {
            Ok(body) => json(StatusCode::OK, body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    fn listeners(&self) -> String {
        let config = self.life.proxy.shared().config.load();
        let mut lines: Vec<String> = config
            .listeners
            .values()
            .map(|plan| format!("{}::{}\n", plan.listener.name, plan.listener.address))
            .collect();
        lines.sort();
        lines.concat()
    }

    fn server_info(&self) -> Response<Full<Bytes>> {
        let state = match self.life.not_ready() {
            None => "LIVE",
            Some(why) if why == "draining" => "DRAINING",
            Some(_) => "PRE_INITIALIZING",
        };
        let info = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": state,
            "uptime_seconds": self.life.begun.elapsed().as_secs(),
            "node": self.node_id,
            "connections": self.life.proxy.open_connections(),
        });
        json(StatusCode::OK, info.to_string())
    }
}
