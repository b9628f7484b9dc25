//! Key sets that are fetched: kept for as long as configured, renewed before they run out, shared by all workers and by all filters that
//! name the same address. What has run out verifies nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sidecar_model::jwt::JwksSource;
use tokio::sync::watch;

use super::keys::{self, Key};

/// A failed fetch is not repeated before (Envoy's default for asynchronous fetches).
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// The one metadata service that is not link-local: Amazon's over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// A key set somewhere else.
#[derive(Debug)]
pub(crate) struct RemoteKeys {
    pub(crate) uri: Box<str>,
    pub(crate) cluster: Arc<str>,
    pub(crate) timeout: Duration,
    cache: Duration,
    state: ArcSwap<State>,
    fetching: AtomicBool,
    fetches: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    fetched: Option<(Instant, Arc<[Key]>)>,
    failed: Option<Instant>,
}

/// Whether a fetch is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The keys are good, or a fetch failed just now.
    Nothing,
    /// The keys are good but will run out.
    Soon,
    /// There are no keys.
    Now,
}

impl RemoteKeys {
    /// The keys, while they are good.
    pub(super) fn current(&self, now: Instant) -> Option<Arc<[Key]>> {
        let state = self.state.load();
        let (at, keys) = state.fetched.as_ref()?;
        (now.saturating_duration_since(*at) < self.cache).then(|| Arc::clone(keys))
    }

    /// Whether a fetch is due.
    pub(crate) fn need(&self, now: Instant) -> Need {
        let state = self.state.load();
        let paused = state.failed.is_some_and(|at| now.saturating_duration_since(at) < FAILED_PAUSE);
        let age = state.fetched.as_ref().map(|(at, _)| now.saturating_duration_since(*at));
        match age {
            _ if paused => Need::Nothing,
            Some(age) if age < self.cache / 4 * 3 => Need::Nothing,
            Some(age) if age < self.cache => Need::Soon,
            _ => Need::Now,
        }
    }

    /// Takes the task of fetching; whoever gets it must call [`RemoteKeys::put`].
    pub(crate) fn begin(&self) -> bool {
        !self.fetching.swap(true, Ordering::AcqRel)
    }

    /// Counts finished fetches.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.fetches.subscribe()
    }

    /// The end of a fetch: a key set's text, or nothing. What is no key set is a failure too, and what was known stays known.
    pub(crate) fn put(&self, body: Option<&[u8]>, now: Instant) {
        let keys = body.and_then(keys::parse).filter(|keys| !keys.is_empty());
        let state = match keys {
            Some(keys) => State { fetched: Some((now, keys.into())), failed: None },
            None => {
                tracing::warn!(uri = %self.uri, cluster = %self.cluster, "Keys of an issuer cannot be fetched");
                State { fetched: self.state.load().fetched.clone(), failed: Some(now) }
            }
        };
        self.state.store(Arc::new(state));
        self.fetching.store(false, Ordering::Release);
        self.fetches.send_modify(|count| *count += 1);
    }
}

/// Whether keys may be fetched from an address: never from where only this machine or its host answers (metadata services live there).
/// `found` says that the address was discovered or resolved: anybody may point a name at ourselves.
pub(crate) fn may_fetch_from(address: IpAddr, found: bool) -> bool {
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    };
    !local && !address.is_unspecified() && !address.is_multicast() && !(found && address.is_loopback())
}

/// Fetched key sets by their source, over pushes.
#[derive(Debug, Default)]
pub struct JwksStore {
    sets: HashMap<(Box<str>, Arc<str>, Duration, Duration), Arc<RemoteKeys>>,
}

impl JwksStore {
    /// The set of a source; none for one that is inline.
    pub(super) fn of(&mut self, source: &JwksSource) -> Option<Arc<RemoteKeys>> {
        let JwksSource::Remote { uri, cluster, timeout, cache } = source else { return None };
        let key = (uri.clone(), Arc::clone(cluster), *timeout, *cache);
        let set = self.sets.entry(key).or_insert_with(|| {
            Arc::new(RemoteKeys {
                uri: uri.clone(),
                cluster: Arc::clone(cluster),
                timeout: *timeout,
                cache: *cache,
                state: ArcSwap::default(),
                fetching: AtomicBool::new(false),
                fetches: watch::Sender::new(0),
            })
        });
        Some(Arc::clone(set))
    }

    /// Forgets what no filter uses any more.
    pub(crate) fn sweep(&mut self) {
        self.sets.retain(|_, set| Arc::strong_count(set) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_renewed_before_they_run_out_and_never_used_after() {
        let source = JwksSource::Remote {
            uri: "http://keys/".into(),
            cluster: "c".into(),
            timeout: Duration::from_secs(1),
            cache: Duration::from_secs(100),
        };
        let mut store = JwksStore::default();
        let set = store.of(&source).unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(set.need(start), Need::Now);
        assert!(set.begin() && !set.begin(), "one fetch at a time");
        set.put(None, start);
        assert!(set.current(start).is_none());
        assert_eq!((set.need(start), set.need(at(1))), (Need::Nothing, Need::Now));
        let text =
            br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        assert!(set.begin());
        set.put(Some(text), start);
        assert_eq!(
            (set.need(at(74)), set.need(at(75)), set.need(at(100))),
            (Need::Nothing, Need::Soon, Need::Now)
        );
        for garbage in [
            None,
            Some(&b"{}"[..]),
            Some(b"<html>"),
            Some(br#"{"keys":[]}"#),
            Some(br#"{"keys":[{"kty":"oct","k":"AA"}]}"#),
        ] {
            set.put(garbage, at(80));
            assert!(set.current(at(99)).is_some(), "a failed renewal takes nothing away");
        }
        assert!(set.current(at(100)).is_none(), "and gives nothing beyond its time");
        assert!(Arc::ptr_eq(&set, &store.of(&source).unwrap()), "a push keeps what was fetched");
        drop(set);
        store.sweep();
        assert!(store.sets.is_empty());
    }

    #[test]
    fn metadata_services_are_out_of_reach() {
        for (address, found, may) in [
            ("10.1.2.3", true, true),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", true, false),
            ("fe80::1", false, false),
            ("fd00:ec2::254", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("127.0.0.1", false, true),
            ("127.0.0.1", true, false),
            ("::1", true, false),
            ("::ffff:127.0.0.1", true, false),
        ] {
            assert_eq!(may_fetch_from(address.parse().unwrap(), found), may, "{address}");
        }
    }
}
