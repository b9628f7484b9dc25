//! What a pod is told of names: its host name, `/etc/hosts` and `/etc/resolv.conf`. Pure text.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// Longest host name the kernel takes.
const HOSTNAME_BYTES_MAX: usize = 63;

/// The cluster's DNS, as pods use it.
#[derive(Clone, Debug)]
pub(crate) struct ClusterDns {
    pub(crate) server: IpAddr,
    pub(crate) domain: String,
}

/// The host name inside the pod.
pub(crate) fn hostname(pod: &Pod, node_name: &str) -> String {
    if pod::host_network(pod) {
        return node_name.to_owned();
    }
    let spec = pod::spec(pod);
    let name = spec.and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| pod::name(pod));
    let short: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The text of the pod's `/etc/hosts`.
pub(crate) fn hosts(pod: &Pod, ip: IpAddr, hostname: &str, dns: &ClusterDns) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let spec = pod::spec(pod);
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|name| !name.is_empty());
    // Writing to a string cannot fail.
    let _written = match subdomain {
        Some(subdomain) => writeln!(
            text,
            "{ip}\t{hostname}.{subdomain}.{}.svc.{}\t{hostname}",
            pod::namespace(pod),
            dns.domain
        ),
        None => writeln!(text, "{ip}\t{hostname}"),
    };
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            let _written = writeln!(text, "{}\t{names}", alias.ip);
        }
    }
    text
}

/// The text of the pod's `/etc/resolv.conf`.
pub(crate) fn resolv_conf(pod: &Pod, dns: &ClusterDns) -> String {
    let spec = pod::spec(pod);
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    // No namespace has a way out, so the node's own servers would never answer: `Default` asks the cluster without its search list.
    let (mut servers, mut search, mut options) = match policy {
        "None" => (Vec::new(), Vec::new(), Vec::new()),
        "Default" => (vec![dns.server.to_string()], Vec::new(), Vec::new()),
        _ => (
            vec![dns.server.to_string()],
            vec![
                format!("{}.svc.{}", pod::namespace(pod), dns.domain),
                format!("svc.{}", dns.domain),
                dns.domain.clone(),
            ],
            vec!["ndots:5".to_owned()],
        ),
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        append(&mut servers, config.nameservers.as_deref().unwrap_or_default());
        append(&mut search, config.searches.as_deref().unwrap_or_default());
        for option in config.options.iter().flatten() {
            let Some(name) = option.name.as_deref().filter(|name| !name.is_empty()) else { continue };
            options.retain(|known: &String| known.split(':').next() != Some(name));
            options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    let mut text = String::new();
    let _written = if search.is_empty() { Ok(()) } else { writeln!(text, "search {}", search.join(" ")) };
    for server in servers {
        let _written = writeln!(text, "nameserver {server}");
    }
    let _written = if options.is_empty() { Ok(()) } else { writeln!(text, "options {}", options.join(" ")) };
    text
}

fn append(list: &mut Vec<String>, more: &[String]) {
    for entry in more {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn dns() -> ClusterDns {
        ClusterDns { server: "10.96.0.10".parse().unwrap(), domain: "cluster.local".into() }
    }

    #[test]
    fn cluster_first_is_the_default() {
        assert_eq!(
            resolv_conf(&pod(json!({"containers": []})), &dns()),
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn a_dns_config_adds_and_replaces() {
        let spec = json!({"containers": [], "dnsConfig": {
            "nameservers": ["1.2.3.4", "10.96.0.10"], "searches": ["corp"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(
            resolv_conf(&pod(spec), &dns()),
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp\n\
             nameserver 10.96.0.10\nnameserver 1.2.3.4\noptions ndots:2 edns0\n"
        );
        assert_eq!(resolv_conf(&pod(json!({"containers": [], "dnsPolicy": "None"})), &dns()), "");
    }

    #[test]
    fn hosts_and_names() {
        let plain = pod(json!({"containers": []}));
        assert_eq!(hostname(&plain, "node1"), "web-1");
        assert_eq!(hostname(&pod(json!({"containers": [], "hostNetwork": true})), "node1"), "node1");
        let named = pod(json!({"containers": [], "hostname": "db", "subdomain": "set",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}]}));
        let text = hosts(&named, "10.244.1.5".parse().unwrap(), "db", &dns());
        assert!(text.contains("10.244.1.5\tdb.set.shop.svc.cluster.local\tdb\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\tfoo\tbar\n"), "{text}");
    }
}
