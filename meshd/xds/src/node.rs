//! Who is on the other end of a stream: the node that it says it is, held against the identity that it proved.

use base_types::ErrorChain;
use meshd_ca::Caller;
use meshd_model::{Locality, ProxyKey, ProxyKind, Snapshot};
use policies_xds::core::Node;
use std::{net::IpAddr, sync::Arc};

/// Why a node cannot be served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidNode {
    /// The id is not of Istio's form.
    #[error("node id `{0}` must be `<sidecar|router>~<ip>~<pod>.<namespace>~<domain>`")]
    Id(String),
    /// It claims another namespace than its token proves.
    #[error("node says namespace `{claimed}`, its token is of `{proven}`")]
    Namespace {
        /// What the id says.
        claimed: String,
        /// What the token says.
        proven: String,
    },
    /// It claims another pod than its token is bound to.
    #[error("node says pod `{claimed}`, its token is bound to `{proven}`")]
    Pod {
        /// What the id says.
        claimed: String,
        /// What the token says.
        proven: String,
    },
}

/// Reads a node. Where the snapshot knows the pod, its labels count and not those that the node sends.
///
/// # Errors
/// [`InvalidNode`] when the id is malformed or claims what the caller did not prove.
pub fn proxy_key(node: &Node, caller: &Caller, snapshot: &Snapshot) -> Result<ProxyKey, InvalidNode> {
    let malformed = || InvalidNode::Id(node.id.chars().take(200).collect());
    let [kind, ip, id, _domain] = node.id.split('~').collect::<Vec<_>>()[..] else { return Err(malformed()) };
    let kind = match kind {
        "sidecar" => ProxyKind::Sidecar,
        "router" => ProxyKind::Router,
        _ => return Err(malformed()),
    };
    let (pod, namespace) = id.rsplit_once('.').ok_or_else(malformed)?;
    let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
    if namespace != caller.namespace {
        return Err(InvalidNode::Namespace { claimed: namespace.into(), proven: caller.namespace.clone() });
    }
    if let Some(proven) = caller.pod.as_deref().filter(|proven| *proven != pod) {
        return Err(InvalidNode::Pod { claimed: pod.into(), proven: proven.into() });
    }
    let (namespace, pod): (Arc<str>, Arc<str>) = (namespace.into(), pod.into());
    let workload = snapshot.workloads.named(&namespace, &pod);
    let locality = node.locality.as_ref().map(|l| Locality {
        region: l.region.as_str().into(),
        zone: l.zone.as_str().into(),
        subzone: l.sub_zone.as_str().into(),
    });
    Ok(ProxyKey {
        id: id.into(),
        kind,
        ips: workload.map_or_else(|| vec![ip], |w| w.ips.clone()),
        labels: workload.map_or_else(|| Arc::new(labels(node)), |w| w.labels.clone()),
        service_account: caller.service_account.as_str().into(),
        node: workload.map(|w| w.node.clone()).unwrap_or_default(),
        locality: workload.map(|w| w.locality.clone()).or(locality).unwrap_or_default(),
        cluster_id: text(node, "CLUSTER_ID").unwrap_or(policies_api::names::CLUSTER_ID).into(),
        namespace,
        pod,
    })
}

fn labels(node: &Node) -> policies_api::matching::StringMap {
    use policies_xds::protobuf::value::Kind;
    let Some(Kind::StructValue(labels)) = field(node, "LABELS") else { return Default::default() };
    let texts = labels.fields.iter().filter_map(|(key, value)| match value.kind.as_ref()? {
        Kind::StringValue(text) => Some((key.clone(), text.clone())),
        _ => None,
    });
    texts.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect()
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match field(node, key)? {
        policies_xds::protobuf::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn field<'a>(node: &'a Node, key: &str) -> Option<&'a policies_xds::protobuf::value::Kind> {
    node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()
}

impl From<InvalidNode> for tonic::Status {
    fn from(error: InvalidNode) -> Self {
        Self::permission_denied(ErrorChain(&error).to_string())
    }
}
