use super::*;

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let status = (STATUS.to_owned(), "{}".to_owned());
    pairs
        .iter()
        .map(|(key, value)| {
            let name = if key.contains('/') { (*key).to_owned() } else { format!("{PREFIX}{key}") };
            (name, (*value).to_owned())
        })
        .chain([status])
        .collect()
}

#[test]
fn a_pod_without_sidecar_is_left_alone() {
    assert_eq!(Interception::from_annotations(&BTreeMap::new()), Ok(None));
    assert_eq!(Interception::from_annotations(&annotations(&[(MODE, "NONE")])), Ok(None));
}

#[test]
fn an_injected_pod_is_captured_whole_by_default() {
    assert_eq!(Interception::from_annotations(&annotations(&[])), Ok(Some(Interception::default())));
}

#[test]
fn lists_are_read_with_spaces_and_empty_items() {
    let read = Interception::from_annotations(&annotations(&[
        ("includeInboundPorts", " 80, 443,"),
        ("excludeOutboundPorts", "25"),
        ("includeOutboundIPRanges", "10.0.0.0/8,10.1.0.0/16,fd00::/8"),
        ("excludeOutboundIPRanges", "10.9.0.1/32"),
    ]))
    .unwrap()
    .unwrap();
    assert_eq!(read.include_inbound_ports, Ports::Only([80, 443].into()));
    assert_eq!(read.exclude_outbound_ports, [25].into());
    assert_eq!(read.include_outbound_cidrs, OutboundRanges::Only(vec!["10.0.0.0/8".parse().unwrap()]));
    assert_eq!(read.exclude_outbound_cidrs, vec!["10.9.0.1/32".parse().unwrap()]);
}

#[test]
fn an_empty_include_captures_nothing_of_that_direction() {
    let read = Interception::from_annotations(&annotations(&[
        ("includeInboundPorts", ""),
        ("includeOutboundIPRanges", ""),
    ]))
    .unwrap()
    .unwrap();
    let rules = read.ruleset();
    assert!(!rules.contains("tcp dport { 15008, 15020, 15021, 15090 } redirect"), "{rules}");
    assert_eq!(rules.matches("redirect to :15006").count(), 1, "only the sidecar's own loop: {rules}");
    assert_eq!(rules.matches("redirect to :15001").count(), 0, "{rules}");
}

#[test]
fn nonsense_is_refused_with_its_name() {
    for (key, value) in [
        ("excludeInboundPorts", "80,http"),
        ("excludeInboundPorts", "0"),
        ("includeOutboundPorts", "70000"),
        ("excludeOutboundPorts", "1-5"),
        ("includeOutboundIPRanges", "10.0.0.0/33"),
        ("excludeOutboundIPRanges", "*"),
        (MODE, "TPROXY"),
    ] {
        let error = Interception::from_annotations(&annotations(&[(key, value)])).unwrap_err();
        assert!(error.name.ends_with(key), "{error}");
    }
}
