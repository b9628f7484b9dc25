use super::*;

fn facts<'a>(sniffed: &'a Sniffed, local: &str, peer: &str) -> Facts<'a> {
    Facts { local: local.parse().unwrap(), peer: peer.parse().unwrap(), sniffed }
}

fn sniffed(tls: bool, name: &str, protocols: &[&str]) -> Sniffed {
    Sniffed {
        tls,
        server_name: (!name.is_empty()).then(|| name.into()),
        protocols: protocols.iter().map(|protocol| (*protocol).into()).collect(),
    }
}

#[test]
fn every_condition_must_hold() {
    let any = FilterChainMatch::default();
    let port = FilterChainMatch { destination_port: Some(9080), ..any.clone() };
    let mesh = FilterChainMatch {
        transport_protocol: TransportProtocol::Tls,
        application_protocols: vec!["istio-http/1.1".into(), "istio".into()],
        ..port.clone()
    };
    let plain = sniffed(false, "", &["http/1.1"]);
    let tls = sniffed(true, "x", &["istio", "h2"]);
    let foreign = sniffed(true, "x", &["h2"]);
    let at = |sniffed| facts(sniffed, "10.0.0.1:9080", "10.0.0.2:1");
    assert!(score(&any, &at(&plain)).is_some());
    assert!(score(&port, &at(&plain)) > score(&any, &at(&plain)));
    assert!(score(&mesh, &at(&tls)) > score(&port, &at(&tls)));
    assert_eq!(score(&mesh, &at(&plain)), None);
    assert_eq!(score(&mesh, &at(&foreign)), None);
    assert_eq!(score(&port, &facts(&plain, "10.0.0.1:80", "10.0.0.2:1")), None);
}

#[test]
fn names_and_ranges_prefer_the_longer() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).into()).collect::<Vec<Box<str>>>();
    assert!(server_name(&names(&["a.b.c"]), Some("A.b.c")) > server_name(&names(&["*.b.c"]), Some("a.b.c")));
    assert!(server_name(&names(&["*.b.c"]), Some("a.b.c")) > server_name(&names(&["*.c"]), Some("a.b.c")));
    assert_eq!(server_name(&names(&["*.b.c"]), Some("b.c")), None);
    assert_eq!(server_name(&names(&["*.b.c"]), None), None);
    let ranges: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
    assert_eq!(longest(&ranges, "10.1.2.3:1".parse().unwrap()), Some(17));
    assert_eq!(longest(&ranges, "10.2.2.3:1".parse().unwrap()), Some(9));
    assert_eq!(longest(&ranges, "11.2.2.3:1".parse().unwrap()), None);
    let local = FilterChainMatch { source_type: SourceType::SameIpOrLoopback, ..FilterChainMatch::default() };
    let plain = sniffed(false, "", &[]);
    assert!(score(&local, &facts(&plain, "10.0.0.1:1", "10.0.0.1:2")).is_some());
    assert!(score(&local, &facts(&plain, "10.0.0.1:1", "10.0.0.3:2")).is_none());
}
