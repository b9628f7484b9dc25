//! Listener filters and filter chain matches.

use std::collections::HashSet;

use policies_xds::listener::{FilterChain, FilterChainMatch, ListenerFilter, listener_filter};
use policies_xds::protobuf::Any;
use policies_xds::{any, http_inspector, original_dst, tls_inspector};

/// HTTP as the inspector of plain text names it.
pub(super) const PLAIN_HTTP: &[&str] = &["http/1.0", "http/1.1", "h2c"];
/// HTTP inside mutual TLS.
pub(super) const MUTUAL_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Bytes inside mutual TLS.
pub(super) const MUTUAL_BYTES: &[&str] = &["istio-peer-exchange", "istio"];
/// Everything inside mutual TLS.
pub(super) const MUTUAL_ANY: &[&str] =
    &["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// A match on transport and application protocol.
pub(super) fn transport(protocol: &str, applications: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: protocol.to_owned(),
        application_protocols: applications.iter().map(|it| (*it).to_owned()).collect(),
        ..Default::default()
    }
}

fn filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        filter_disabled: None,
    }
}

/// Reads where a redirected connection was going.
pub(super) fn original_destination() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", any(&original_dst::OriginalDst {}))
}

/// Reads server name and ALPN of a TLS client.
pub(super) fn tls_hello() -> ListenerFilter {
    filter("envoy.filters.listener.tls_inspector", any(&tls_inspector::TlsInspector::default()))
}

/// Tells HTTP from other plain text.
pub(super) fn http_detection() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", any(&http_inspector::HttpInspector {}))
}

/// The chains without what an earlier one takes already: a listener in which two chains take the same connection is refused whole.
pub(super) fn unique(chains: Vec<FilterChain>) -> Vec<FilterChain> {
    let mut taken: HashSet<String> = HashSet::new();
    chains.into_iter().filter_map(|chain| without_taken(chain, &mut taken)).collect()
}

fn without_taken(mut chain: FilterChain, taken: &mut HashSet<String>) -> Option<FilterChain> {
    let mut matches = chain.filter_chain_match.take().unwrap_or_default();
    let or_any = |list: Vec<String>| if list.is_empty() { vec![String::new()] } else { list };
    let ranges = or_any(matches.prefix_ranges.iter().map(|it| format!("{it:?}")).collect());
    let applications = or_any(matches.application_protocols.clone());
    let port = matches.destination_port.map_or(0, |it| it.value);
    let transport = &matches.transport_protocol;
    let keys = |name: &str| -> Vec<String> {
        let each = ranges.iter().flat_map(|range| applications.iter().map(move |it| (range, it)));
        each.map(|(range, it)| format!("{port} {range} {name} {transport} {it}")).collect()
    };
    let free = |name: &String| keys(name).iter().all(|key| !taken.contains(key));
    let names: Vec<String> = or_any(matches.server_names.clone()).into_iter().filter(free).collect();
    if names.is_empty() {
        return None;
    }
    let used: Vec<String> = names.iter().flat_map(|name| keys(name)).collect();
    taken.extend(used);
    matches.server_names.retain(|name| names.contains(name));
    chain.filter_chain_match = (matches != FilterChainMatch::default()).then_some(matches);
    Some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> FilterChain {
        let server_names = names.iter().map(|it| (*it).to_owned()).collect();
        let condition = FilterChainMatch { server_names, ..Default::default() };
        FilterChain { filter_chain_match: Some(condition), ..Default::default() }
    }

    #[test]
    fn no_two_chains_take_the_same_connection() {
        let found = unique(vec![
            named(&["a", "b"]),
            named(&["b", "c"]),
            named(&["a"]),
            named(&[]),
            FilterChain::default(),
        ]);
        let names: Vec<Vec<String>> =
            found.iter().map(|it| it.filter_chain_match.clone().unwrap_or_default().server_names).collect();
        assert_eq!(names, vec![vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()], vec![]]);
    }
}
