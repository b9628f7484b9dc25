//! Live requests for people who watch: copies of what passes, without secrets, while somebody asks; and the last failures always.
//!
//! While nobody watches and nothing fails this costs a request one load of a number.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::cause;
use crate::log::Entry;

/// Watchers at once.
const SESSIONS_MAX: usize = 4;
/// Requests that wait for a watcher; more are dropped and counted.
const WAITING_MAX: usize = 1000;
/// A watcher that asks no more is forgotten after this.
const SESSION_LIFE: Duration = Duration::from_secs(10);
/// Failures that are remembered.
const FAILURES_MAX: usize = 128;
/// Headers that are shown of a message, and bytes of each.
const HEADERS_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 256;
/// Bytes of a path that are shown.
const PATH_BYTES_MAX: usize = 1024;
/// Headers whose values are secrets.
const SECRET: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-forwarded-client-cert"];

/// Which requests a watcher wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Beginning of the path; empty: any.
    pub path: String,
    /// Method; empty: any.
    pub method: String,
    /// A status such as `503`, or a class such as `5xx`; empty: any.
    pub status: String,
    /// Only those that failed.
    pub failed: bool,
}

/// Who watches, and what failed.
#[derive(Debug, Default)]
pub struct Tap {
    watchers: AtomicUsize,
    sessions: Mutex<Vec<Session>>,
    failures: Mutex<VecDeque<(String, Value)>>,
}

#[derive(Debug)]
struct Session {
    id: String,
    wanted: Wanted,
    waiting: VecDeque<Value>,
    dropped: u64,
    asked: Instant,
}

/// Headers as a watcher sees them.
pub fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let one = |(name, value): (&HeaderName, &http::HeaderValue)| {
        let text = if SECRET.contains(&name.as_str()) {
            "[redacted]".to_owned()
        } else {
            let bytes = &value.as_bytes()[..VALUE_BYTES_MAX.min(value.len())];
            String::from_utf8_lossy(bytes).into_owned()
        };
        (name.as_str().to_owned(), Value::from(text))
    };
    headers.iter().take(HEADERS_MAX).map(one).collect()
}

impl Tap {
    /// Whether anybody watches.
    pub fn is_on(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    /// A request has ended. Headers are there when it was watched from its beginning.
    pub fn ended(&self, entry: &Entry<'_>, request_id: &str, headers: Option<[Map<String, Value>; 2]>) {
        let failure = cause::of(entry);
        if failure.is_none() && !self.is_on() {
            return;
        }
        let failed = failure.is_some();
        let mut event = event(entry, request_id);
        if let Some(failure) = failure {
            event["failure"] = serde_json::to_value(failure).unwrap_or_default();
            let mut failures = self.failures.lock();
            if failures.len() >= FAILURES_MAX {
                failures.pop_front();
            }
            failures.push_back((request_id.to_owned(), event.clone()));
        }
        if self.is_on() {
            if let Some([request, response]) = headers {
                event["requestHeaders"] = request.into();
                event["responseHeaders"] = response.into();
            }
            self.show(entry, failed, &event);
        }
    }

    fn show(&self, entry: &Entry<'_>, failed: bool, event: &Value) {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.asked.elapsed() < SESSION_LIFE);
        self.watchers.store(sessions.len(), Relaxed);
        for session in sessions.iter_mut().filter(|session| session.wanted.includes(entry, failed)) {
            if session.waiting.len() >= WAITING_MAX {
                session.dropped += 1;
            } else {
                session.waiting.push_back(event.clone());
            }
        }
    }

    /// What a watcher has not seen yet, and how much was dropped since it asked last. The first question of an `id` begins the watch.
    ///
    /// # Errors
    /// When too many watch already.
    pub fn take(&self, id: &str, wanted: Wanted, max: usize) -> Result<(Vec<Value>, u64), &'static str> {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.id == id || session.asked.elapsed() < SESSION_LIFE);
        let at = match sessions.iter().position(|session| session.id == id) {
            Some(at) => at,
            None if sessions.len() >= SESSIONS_MAX => return Err("too many watch this proxy already"),
            None => {
                let waiting = VecDeque::new();
                sessions.push(Session {
                    id: id.to_owned(),
                    wanted,
                    waiting,
                    dropped: 0,
                    asked: Instant::now(),
                });
                sessions.len() - 1
            }
        };
        self.watchers.store(sessions.len(), Relaxed);
        let session = &mut sessions[at];
        session.asked = Instant::now();
        let count = session.waiting.len().min(max);
        Ok((session.waiting.drain(..count).collect(), std::mem::take(&mut session.dropped)))
    }

    /// Ends a watch.
    pub fn forget(&self, id: &str) {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.id != id);
        self.watchers.store(sessions.len(), Relaxed);
    }

    /// The failures of one request, or all that are remembered.
    pub fn failures(&self, request_id: Option<&str>) -> Vec<Value> {
        let failures = self.failures.lock();
        let fits = |(id, _): &&(String, Value)| request_id.is_none_or(|wanted| wanted == id);
        failures.iter().filter(fits).map(|(_, event)| event.clone()).collect()
    }
}

impl Wanted {
    fn includes(&self, entry: &Entry<'_>, failed: bool) -> bool {
        let status = match self.status.strip_suffix("xx") {
            Some(class) => class.parse() == Ok(entry.code / 100),
            None => self.status.is_empty() || self.status.parse() == Ok(entry.code),
        };
        status
            && (failed || !self.failed)
            && entry.path.starts_with(&self.path)
            && (self.method.is_empty() || self.method.eq_ignore_ascii_case(entry.method))
    }
}

fn event(entry: &Entry<'_>, request_id: &str) -> Value {
    let start = jiff::Timestamp::try_from(entry.start).map(|time| format!("{time:.3}")).unwrap_or_default();
    let path: String = entry.path.chars().take(PATH_BYTES_MAX).collect();
    json!({
        "time": start,
        "proxy": entry.hostname,
        "requestId": request_id,
        "protocol": entry.protocol,
        "method": entry.method,
        "authority": entry.authority,
        "path": path,
        "status": entry.code,
        "flags": entry.flags.to_string(),
        "details": entry.details,
        "durationMs": entry.duration.as_secs_f64() * 1000.0,
        "bytesReceived": entry.bytes_received,
        "bytesSent": entry.bytes_sent,
        "attempts": entry.attempts,
        "client": entry.downstream_remote.map(|address| address.to_string()),
        "clientIdentity": entry.peer_uri,
        "cluster": entry.upstream_cluster,
        "endpoint": entry.upstream_host.map(|address| address.to_string()),
        "route": entry.route,
        "transportFailure": entry.transport_failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flag;

    fn end(tap: &Tap, path: &str, code: u16) {
        let none = HeaderMap::new();
        let mut entry = Entry::new(&none);
        (entry.method, entry.path, entry.code) = ("GET", path, code);
        if code == 503 {
            entry.flags = Flag::NoHealthyUpstream.into();
        }
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "session=secret".parse().unwrap());
        headers.insert("accept", "a".repeat(1000).parse().unwrap());
        let id = format!("id{path}");
        tap.ended(&entry, &id, Some([shown(&headers), shown(&headers)]));
    }

    #[test]
    fn watchers_see_what_they_want_without_secrets() {
        let tap = Tap::default();
        end(&tap, "/before", 200);
        assert!(!tap.is_on());
        let wanted = Wanted { path: "/a".into(), status: "2xx".into(), ..Wanted::default() };
        assert_eq!(tap.take("one", wanted.clone(), 10), Ok((Vec::new(), 0)));
        assert!(tap.is_on());
        for (path, code) in [("/a/1", 200), ("/a/2", 404), ("/b", 200), ("/a/3", 204)] {
            end(&tap, path, code);
        }
        let (seen, _) = tap.take("one", wanted.clone(), 10).unwrap();
        let paths: Vec<_> = seen.iter().map(|event| event["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/a/1", "/a/3"]);
        let text = seen[0].to_string();
        assert!(!text.contains("secret") && text.contains("[redacted]"), "{text}");
        assert!(text.len() < 3000, "{}", text.len());
        for _ in 0..WAITING_MAX + 5 {
            end(&tap, "/a", 200);
        }
        let (seen, dropped) = tap.take("one", wanted.clone(), 10).unwrap();
        assert_eq!((seen.len(), dropped), (10, 5));
        for id in ["two", "three", "four"] {
            tap.take(id, Wanted::default(), 1).unwrap();
        }
        assert!(tap.take("five", Wanted::default(), 1).is_err());
        for id in ["one", "two", "three", "four"] {
            tap.forget(id);
        }
        assert!(!tap.is_on());
    }

    #[test]
    fn the_last_failures_are_remembered() {
        let tap = Tap::default();
        for number in 0..FAILURES_MAX + 3 {
            end(&tap, &format!("/{number}"), 503);
            end(&tap, "/good", 200);
        }
        assert_eq!(tap.failures(None).len(), FAILURES_MAX);
        let [failure] = &tap.failures(Some("id/130"))[..] else { panic!("not one") };
        assert_eq!((&failure["failure"]["flag"], &failure["status"]), (&"UH".into(), &503.into()));
        assert!(tap.failures(Some("id/0")).is_empty() && tap.failures(Some("id/good")).is_empty());
    }
}
