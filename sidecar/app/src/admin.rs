//! The admin port, on loopback only: what the proxy was told and what it does with it, in the forms of Envoy's admin interface.
//!
//! What changes anything is asked by POST; a GET never does.

mod dump;
mod process;
mod query;
mod tap;

use std::sync::Arc;

use base_runtime::http_server::{json, text};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sidecar_proxy::stats::{self, Kind};

use crate::life::Life;
use crate::merge;
use query::Query;

/// What may be asked for. `POST` is for what changes something.
const PATHS: [(&str, &str, &str); 22] = [
    ("GET", "/certs", "certificates in use"),
    ("GET", "/clusters", "endpoints with health and load; ?format=json"),
    ("GET", "/config_dump", "the configuration in force; ?include_eds, ?resource=, ?name_regex="),
    ("POST", "/drain", "end connections after what they are doing; the same as /drain_listeners"),
    ("POST", "/drain_listeners", "end connections after what they are doing"),
    ("POST", "/healthcheck/fail", "fail readiness"),
    ("POST", "/healthcheck/ok", "no longer fail readiness"),
    ("GET", "/drained", "whether nothing is under way any more since the drain"),
    ("GET", "/help", "this list"),
    ("GET", "/hot_restart_version", "compatibility of hot restarts"),
    ("GET", "/init_dump", "what is waited for"),
    ("GET", "/listeners", "listeners with their addresses; ?format=json"),
    ("GET", "/logging", "the log filter; POST with ?level= or ?paths=name:level changes it"),
    ("GET", "/memory", "memory in use"),
    ("POST", "/quitquitquit", "end the process at once"),
    ("GET", "/ready", "whether the proxy is ready"),
    ("GET", "/server_info", "version, state, node"),
    ("GET", "/stats", "counters and gauges; ?format=json|prometheus, ?filter=regex, ?usedonly"),
    ("GET", "/stats/prometheus", "Istio's metrics and Envoy's counters"),
    (
        "GET",
        "/tap",
        "requests as they end, without secrets; ?id=, ?path=, ?method=, ?status=, ?failed, ?max=",
    ),
    ("GET", "/failures", "the last requests that failed, and why; ?request_id="),
    ("POST", "/stats/flush", "nothing: numbers are always current"),
];

/// The admin port.
pub(crate) struct Admin {
    pub(crate) life: Arc<Life>,
    pub(crate) node: sidecar_xds::Node,
    pub(crate) log: base_runtime::log::Filter,
    /// Where the admin interface itself is.
    pub(crate) port: u16,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    /// Answers a request.
    pub(crate) async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let query = match Query::parse(request.uri().query().unwrap_or_default()) {
            Ok(query) => query,
            Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        };
        let posted = *request.method() == Method::POST;
        if !posted && request.method() != Method::GET {
            return not_allowed("GET, POST");
        }
        let known = PATHS.iter().find(|(_, known, _)| *known == path);
        if !posted && known.is_some_and(|(method, ..)| *method == "POST") {
            return not_allowed("POST");
        }
        let answer = match path {
            "/tap" => self.tap(&query).await,
            _ if posted => self.change(path, &query),
            _ => self.show(path, &query),
        };
        answer.unwrap_or_else(|why| text(StatusCode::BAD_REQUEST, format!("{why}\n")))
    }

    /// What changes something.
    fn change(&self, path: &str, query: &Query) -> Result<Answer, String> {
        match path {
            "/drain" | "/drain_listeners" => self.life.drain(),
            "/healthcheck/fail" => self.life.fail_health(true),
            "/healthcheck/ok" => self.life.fail_health(false),
            "/quitquitquit" => self.life.quit(),
            "/stats/flush" => {}
            "/logging" => return self.change_logging(query),
            // Envoy answers questions by either method.
            _ => return self.show(path, query),
        }
        Ok(text(StatusCode::OK, "OK\n"))
    }

    fn show(&self, path: &str, query: &Query) -> Result<Answer, String> {
        let shared = self.life.proxy.shared();
        Ok(match path {
            "/" | "/help" => text(StatusCode::OK, help()),
            "/ready" => self.ready(),
            "/drained" => match self.life.not_drained() {
                None => text(StatusCode::OK, "DRAINED\n"),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            },
            "/config_dump" => pretty(&dump::config_dump(self, query)?),
            "/init_dump" => pretty(&json!({})),
            "/clusters" if query.is_json()? => pretty(&stats::clusters_json(shared)),
            "/clusters" => text(StatusCode::OK, stats::clusters(shared)),
            "/listeners" => self.listeners(query.is_json()?),
            "/stats" => self.stats(query)?,
            "/stats/prometheus" => merge::response(merge::own(&self.life)),
            "/certs" => pretty(&dump::certs(&self.life.status.view())),
            "/logging" => self.logging(),
            "/failures" => pretty(&json!({ "failures": shared.tap.failures(query.get("request_id")) })),
            "/memory" => pretty(&process::memory()),
            "/server_info" => pretty(&self.server_info()),
            "/hot_restart_version" => text(StatusCode::OK, "disabled\n"),
            _ => text(StatusCode::NOT_FOUND, format!("invalid path. {}", help())),
        })
    }

    fn ready(&self) -> Answer {
        match self.life.not_ready() {
            None => text(StatusCode::OK, "LIVE\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}: {why}\n", self.state())),
        }
    }

    /// The state in Envoy's words.
    fn state(&self) -> &'static str {
        match self.life.not_ready() {
            None => "LIVE",
            Some(_) if self.life.is_leaving() => "DRAINING",
            Some(_) => "PRE_INITIALIZING",
        }
    }

    fn listeners(&self, as_json: bool) -> Answer {
        let config = self.life.proxy.shared().config.load();
        let mut all: Vec<_> =
            config.listeners.values().map(|plan| (&plan.listener.name, &plan.listener.address)).collect();
        all.sort_by_key(|(name, _)| *name);
        if as_json {
            let one = |(name, address): (&Arc<str>, &sidecar_model::Address)| json!({ "name": &**name, "local_address": sidecar_model::dump::address(address) });
            return pretty(&json!({ "listener_statuses": all.into_iter().map(one).collect::<Vec<_>>() }));
        }
        let line = |(name, address): (&Arc<str>, &sidecar_model::Address)| format!("{name}::{address}\n");
        text(StatusCode::OK, all.into_iter().map(line).collect::<String>())
    }

    fn stats(&self, query: &Query) -> Result<Answer, String> {
        let format = query.get("format").unwrap_or("text");
        if format == "prometheus" {
            return Ok(merge::response(merge::own(&self.life)));
        }
        let filter = query.regex("filter")?;
        let used_only = query.get("usedonly").is_some();
        let kept = |stat: &stats::Stat| {
            filter.as_ref().is_none_or(|filter| filter.is_match(&stat.name)) && (!used_only || stat.value > 0)
        };
        let all: Vec<stats::Stat> = stats::list(self.life.proxy.shared()).into_iter().filter(kept).collect();
        match (format, query.get("type")) {
            ("json", _) => {
                let one = |stat: &stats::Stat| json!({ "name": stat.name, "value": stat.value });
                Ok(pretty(&json!({ "stats": all.iter().map(one).collect::<Vec<_>>() })))
            }
            ("text", kind) => {
                let wanted = match kind {
                    None | Some("All") => None,
                    Some("Counters") => Some(Kind::Counter),
                    Some("Gauges") => Some(Kind::Gauge),
                    Some(other) => {
                        return Err(format!("`type` must be All, Counters or Gauges, not `{other}`"));
                    }
                };
                let of_kind = all.iter().filter(|stat| wanted.is_none_or(|wanted| wanted == stat.kind));
                let lines: String = of_kind.map(|stat| format!("{}: {}\n", stat.name, stat.value)).collect();
                Ok(text(StatusCode::OK, lines))
            }
            (other, _) => Err(format!("usage: /stats?format=json|text|prometheus, not `{other}`")),
        }
    }

    fn logging(&self) -> Answer {
        let filter = self.log.to_string();
        let lines: String = filter.split(',').map(|one| format!("  {}\n", one.replace('=', ": "))).collect();
        text(StatusCode::OK, format!("active loggers:\n{lines}"))
    }

    /// `?level=debug` for everything, `?paths=sidecar_proxy:debug,h2:warn` for parts, `?sidecar_proxy=debug` for one.
    fn change_logging(&self, query: &Query) -> Result<Answer, String> {
        let level = |word: &str| match word {
            "trace" | "debug" | "info" | "warn" | "error" | "off" => Ok(word.to_owned()),
            "warning" => Ok("warn".to_owned()),
            "critical" => Ok("error".to_owned()),
            other => Err(format!("unknown logger level `{other}`")),
        };
        let filter = match query.pairs() {
            [] => return Ok(self.logging()),
            [(key, word)] if key == "level" => level(word)?,
            [(key, list)] if key == "paths" => {
                let parts =
                    list.split(',').filter(|part| !part.is_empty()).map(|part| match part.split_once(':') {
                        Some((name, word)) => Ok(format!("{name}={}", level(word)?)),
                        None => level(part),
                    });
                self.merged(&parts.collect::<Result<Vec<_>, String>>()?)
            }
            [(name, word)] => self.merged(&[format!("{name}={}", level(word)?)]),
            _ => {
                return Err(
                    "usage: /logging?level=<level>, ?paths=<name>:<level>,… or ?<name>=<level>".to_owned()
                );
            }
        };
        self.log.change(&filter).map_err(|error| error.to_string())?;
        tracing::info!(%filter, "Log filter changed");
        Ok(self.logging())
    }

    /// The filter in force with `parts` in place of what it says of the same names.
    fn merged(&self, parts: &[String]) -> String {
        let name = |part: &str| part.split_once('=').map(|(name, _)| name.to_owned());
        let in_force = self.log.to_string();
        let kept = in_force.split(',').filter(|old| !parts.iter().any(|new| name(new) == name(old)));
        kept.map(str::to_owned).chain(parts.iter().cloned()).collect::<Vec<_>>().join(",")
    }

    fn server_info(&self) -> Value {
        let uptime = format!("{}s", self.life.begun.elapsed().as_secs());
        json!({
            "version": format!("mesh-sidecar/{}", env!("CARGO_PKG_VERSION")),
            "state": self.state(),
            "hot_restart_version": "disabled",
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "command_line_options": { "service_cluster": self.node.cluster, "service_node": self.node.id },
            "node": dump::node(&self.node),
        })
    }
}

fn help() -> String {
    let line = |(method, path, what): &(&str, &str, &str)| {
        let method = if *method == "POST" { " (POST)" } else { "" };
        format!("  {path}{method}: {what}\n")
    };
    format!("admin commands are:\n{}", PATHS.iter().map(line).collect::<String>())
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("Method Not Allowed: use {allowed}\n"));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn pretty(value: &Value) -> Answer {
    json(StatusCode::OK, format!("{value:#}\n"))
}
