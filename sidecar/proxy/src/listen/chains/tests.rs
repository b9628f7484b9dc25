use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn facts<'a>(sniffed: &'a Sniffed, local: &str, peer: &str) -> Facts<'a> {
    let peer = peer.parse().unwrap();
    Facts { local: local.parse().unwrap(), peer, direct: peer, sniffed }
}

fn sniffed(tls: bool, name: &str, protocols: &[&str]) -> Sniffed {
    Sniffed {
        tls,
        server_name: (!name.is_empty()).then(|| name.into()),
        protocols: protocols.iter().map(|protocol| (*protocol).into()).collect(),
    }
}

#[test]
fn a_more_specific_port_hides_the_rest() {
    let any = FilterChainMatch::default();
    let port = FilterChainMatch { destination_port: Some(9080), ..any.clone() };
    let mesh = FilterChainMatch {
        transport_protocol: TransportProtocol::Tls,
        application_protocols: vec!["istio-http/1.1".into(), "istio".into()],
        ..port.clone()
    };
    let (plain, tls, foreign) = (
        sniffed(false, "", &["http/1.1"]),
        sniffed(true, "x", &["istio", "h2"]),
        sniffed(true, "x", &["h2"]),
    );
    let at = |sniffed| facts(sniffed, "10.0.0.1:9080", "10.0.0.2:1");
    assert_eq!(most_specific(&[&any, &port, &mesh], &at(&plain)), Some(1));
    assert_eq!(most_specific(&[&any, &port, &mesh], &at(&tls)), Some(2));
    assert_eq!(
        most_specific(&[&any, &port, &mesh], &at(&foreign)),
        None,
        "nor from TLS to chains of any transport"
    );
    assert_eq!(most_specific(&[&any, &mesh], &at(&plain)), None, "no way back to a chain of any port");
    assert_eq!(most_specific(&[&any, &mesh], &facts(&plain, "10.0.0.1:80", "10.0.0.2:1")), Some(0));
}

#[test]
fn names_and_ranges_prefer_the_longer() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).into()).collect::<Vec<Box<str>>>();
    assert!(server_name(&names(&["a.b.c"]), Some("A.b.c")) > server_name(&names(&["*.b.c"]), Some("a.b.c")));
    assert!(server_name(&names(&["*.b.c"]), Some("a.b.c")) > server_name(&names(&["*.c"]), Some("a.b.c")));
    assert_eq!(server_name(&names(&["*.b.c"]), Some("b.c")), None);
    assert_eq!(server_name(&names(&["*.b.c"]), None), None);
    let ranges: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
    assert_eq!(longest(&ranges, "10.1.2.3:1".parse().unwrap()), Some(16));
    assert_eq!(longest(&ranges, "10.2.2.3:1".parse().unwrap()), Some(8));
    assert_eq!(longest(&ranges, "11.2.2.3:1".parse().unwrap()), None);
}

#[test]
fn a_client_prefers_its_first_protocol() {
    let speaks = |name: &str| FilterChainMatch {
        application_protocols: vec![name.into()],
        ..FilterChainMatch::default()
    };
    let (h2, h1) = (speaks("h2"), speaks("http/1.1"));
    for (offer, want) in [(["h2", "http/1.1"], 0), (["http/1.1", "h2"], 1)] {
        let sniffed = sniffed(true, "", &offer);
        assert_eq!(most_specific(&[&h2, &h1], &facts(&sniffed, "10.0.0.1:1", "10.0.0.2:1")), Some(want));
    }
}

/// The same rules told as lookups in nested maps: at each level the keys that would be asked for, in order, and the first that any
/// remaining chain stands under decides.
fn reference(all: &[FilterChainMatch], facts: &Facts<'_>) -> Option<usize> {
    let mut left: Vec<usize> = (0..all.len()).collect();
    let mut level = |asked: Vec<String>, under: &dyn Fn(&FilterChainMatch) -> Vec<String>| {
        let key = asked.into_iter().find(|key| left.iter().any(|index| under(&all[*index]).contains(key)));
        left.retain(|index| key.as_ref().is_some_and(|key| under(&all[*index]).contains(key)));
    };
    let or_any = |keys: Vec<String>| if keys.is_empty() { vec!["any".to_owned()] } else { keys };
    let ranges = |address: IpAddr| -> Vec<String> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().map(|length| IpNet::new(address, length).unwrap().trunc().to_string()).collect()
    };
    let under_ranges = |list: &[IpNet]| -> Vec<String> {
        match list {
            [] => vec!["0.0.0.0/0".into(), "::/0".into()],
            some => some.iter().map(|range| range.trunc().to_string()).collect(),
        }
    };
    level(vec![facts.local.port().to_string(), "any".into()], &|m| {
        or_any(m.destination_port.iter().map(u16::to_string).collect())
    });
    level(ranges(facts.local.ip()), &|m| under_ranges(&m.prefix_ranges));
    let name = facts.sniffed.server_name.as_deref().unwrap_or_default();
    let suffixes = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
    level(std::iter::once(name.to_owned()).chain(suffixes).chain(["any".to_owned()]).collect(), &|m| {
        or_any(m.server_names.iter().map(ToString::to_string).collect())
    });
    let transport = if facts.sniffed.tls { "Tls" } else { "RawBuffer" };
    level(vec![transport.into(), "Any".into()], &|m| vec![format!("{:?}", m.transport_protocol)]);
    let offered = facts.sniffed.protocols.iter().map(ToString::to_string);
    level(offered.chain(["any".to_owned()]).collect(), &|m| {
        or_any(m.application_protocols.iter().map(ToString::to_string).collect())
    });
    level(ranges(facts.direct.ip()), &|m| under_ranges(&m.direct_source_prefix_ranges));
    let local = facts.peer.ip().is_loopback() || facts.peer.ip() == facts.local.ip();
    level(vec![if local { "SameIpOrLoopback" } else { "External" }.into(), "Any".into()], &|m| {
        vec![format!("{:?}", m.source_type)]
    });
    level(ranges(facts.peer.ip()), &|m| under_ranges(&m.source_prefix_ranges));
    level(vec![facts.peer.port().to_string(), "any".into()], &|m| {
        or_any(m.source_ports.iter().map(u16::to_string).collect())
    });
    left.first().copied()
}

fn some_of<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::sample::subsequence(all, 1..=2)]
}

fn ranges() -> impl Strategy<Value = Vec<IpNet>> {
    some_of(
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "127.0.0.0/8", "fd00::/8"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
    )
}

prop_compose! {
    fn a_match()(
        destination_port in prop_oneof![Just(None), Just(Some(80)), Just(Some(81))],
        prefix_ranges in ranges(),
        server_names in some_of(["a.b.c", "*.b.c", "*.c", "d"].map(Box::from).to_vec()),
        transport_protocol in proptest::sample::select(&[TransportProtocol::Any, TransportProtocol::Tls, TransportProtocol::RawBuffer][..]),
        application_protocols in some_of(["h2", "http/1.1", "istio"].map(Box::from).to_vec()),
        direct_source_prefix_ranges in ranges(),
        source_type in proptest::sample::select(&[SourceType::Any, SourceType::SameIpOrLoopback, SourceType::External][..]),
        source_prefix_ranges in ranges(),
        source_ports in some_of(vec![1_u16, 2]),
    ) -> FilterChainMatch {
        FilterChainMatch {
            destination_port, prefix_ranges, server_names, transport_protocol, application_protocols,
            direct_source_prefix_ranges, source_type, source_prefix_ranges, source_ports,
        }
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    proptest::sample::select(
        ["10.1.0.1", "10.1.0.2", "10.2.0.1", "127.0.0.1", "fd00::1"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn chains_are_chosen_as_by_envoys_maps(
        all in proptest::collection::vec(a_match(), 1..8),
        (local, peer, direct) in (address(), address(), address()),
        (port, peer_port) in (80..82_u16, 1..3_u16),
        tls in any::<bool>(),
        name in proptest::sample::select(&["", "a.b.c", "x.b.c", "x.c", "d"][..]),
        protocols in proptest::sample::subsequence(vec!["h2", "istio", "http/1.1"], 0..=3).prop_shuffle(),
    ) {
        let sniffed = sniffed(tls, name, &protocols);
        let facts = Facts {
            local: (local, port).into(), peer: (peer, peer_port).into(), direct: (direct, 9).into(), sniffed: &sniffed,
        };
        let matches: Vec<_> = all.iter().collect();
        prop_assert_eq!(most_specific(&matches, &facts), reference(&all, &facts));
    }
}
