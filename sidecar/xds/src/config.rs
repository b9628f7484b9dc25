//! What the caller has to know to begin.

use policies_xds::core;
use policies_xds::protobuf::{ListValue, Struct, Value, value::Kind};
use std::path::PathBuf;
use std::time::Duration;

/// Where the control plane is, and who we are to it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port` of discovery and of the certificate service; the host is what the server's certificate must prove.
    pub discovery_address: String,
    /// How the control plane tells what is new.
    pub protocol: Protocol,
    /// PEM file of the roots that vouch for the control plane; read again at every connection.
    pub root_cert: PathBuf,
    /// File with the service account's token; read again at every connection.
    pub token: PathBuf,
    /// Who we are.
    pub node: Node,
    /// Directory for the last good configuration; `None`: it is not kept. It may hold keys of gateways, so it should be in memory.
    pub state_dir: Option<PathBuf>,
    /// Trust domain of the workload's identity.
    pub trust_domain: String,
    /// Namespace of the workload's identity.
    pub namespace: String,
    /// Service account of the workload's identity.
    pub service_account: String,
    /// Life asked for in certificate requests.
    pub certificate_ttl: Duration,
}

/// The form of discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Changes: `DeltaAggregatedResources`.
    #[default]
    Delta,
    /// Whole states: `StreamAggregatedResources`.
    Whole,
}

/// How the proxy presents itself.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Such as `sidecar~10.1.1.1~reviews-1.default~default.svc.cluster.local`.
    pub id: String,
    /// Such as `reviews.default`.
    pub cluster: String,
    /// Metadata in Istio's form; anything but an object counts as empty.
    pub metadata: serde_json::Value,
    /// Where it runs.
    pub locality: Locality,
}

/// Where a proxy runs; empty parts are not known.
#[derive(Clone, Debug, Default)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

// === impl Node ===

impl Node {
    /// The message that opens a stream.
    pub(crate) fn message(&self) -> core::Node {
        let Locality { region, zone, sub_zone } = self.locality.clone();
        core::Node {
            id: self.id.clone(),
            cluster: self.cluster.clone(),
            metadata: Some(structure(&self.metadata)),
            locality: Some(core::Locality { region, zone, sub_zone }),
            user_agent_name: "mesh-sidecar".to_owned(),
            ..Default::default()
        }
    }
}

fn structure(json: &serde_json::Value) -> Struct {
    let fields = json.as_object().into_iter().flatten();
    Struct { fields: fields.map(|(key, json)| (key.clone(), value(json))).collect() }
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(value).collect() }),
        Json::Object(_) => Kind::StructValue(structure(json)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_carries_its_metadata() {
        let metadata = serde_json::json!({"LABELS": {"app": "reviews"}, "N": 1, "L": [true, null]});
        let node = Node { id: "sidecar~x".into(), metadata, ..Node::default() }.message();
        let fields = node.metadata.unwrap().fields;
        let Some(Kind::StructValue(labels)) = &fields["LABELS"].kind else { panic!("{fields:?}") };
        assert_eq!(labels.fields["app"].kind, Some(Kind::StringValue("reviews".into())));
        assert_eq!(fields["N"].kind, Some(Kind::NumberValue(1.0)));
    }
}
