//! `/tap`: a watcher asks again and again under an identifier of its own; each answer waits until there is something to show.

use std::time::Duration;

use base_runtime::http_server::text;
use http::StatusCode;
use serde_json::json;
use sidecar_telemetry::tap::Wanted;

use super::query::Query;
use super::{Admin, Answer, pretty};

/// How long an answer waits for a request.
const WAIT: Duration = Duration::from_secs(1);
/// How often it looks.
const TICK: Duration = Duration::from_millis(20);
/// Requests in one answer.
const EVENTS_MAX: usize = 500;
/// Bytes of a parameter.
const PARAMETER_BYTES_MAX: usize = 256;

impl Admin {
    pub(super) async fn tap(&self, query: &Query) -> Result<Answer, String> {
        let of = |key: &str| match query.get(key).unwrap_or_default() {
            text if text.len() > PARAMETER_BYTES_MAX => Err(format!("`{key}` is too long")),
            text => Ok(text.to_owned()),
        };
        let id = of("id")?;
        if id.is_empty() {
            return Err("usage: /tap?id=<any text, the same at each call>".to_owned());
        }
        let tap = &self.life.proxy.shared().tap;
        if query.get("end").is_some() {
            tap.forget(&id);
            return Ok(pretty(&json!({ "events": [], "dropped": 0 })));
        }
        let status = of("status")?;
        if !status.is_empty() && status.trim_end_matches("xx").parse::<u16>().is_err() {
            return Err(format!("`status` must be like 503 or 5xx, not `{status}`"));
        }
        let wanted = Wanted {
            path: of("path")?,
            method: of("method")?,
            status,
            failed: query.get("failed").is_some(),
        };
        let max = query.get("max").and_then(|max| max.parse().ok()).unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            match tap.take(&id, wanted.clone(), max) {
                Err(why) => return Ok(text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))),
                Ok((events, dropped)) if !events.is_empty() || tokio::time::Instant::now() >= deadline => {
                    return Ok(pretty(&json!({ "events": events, "dropped": dropped })));
                }
                Ok(_) => tokio::time::sleep(TICK).await,
            }
        }
    }
}
