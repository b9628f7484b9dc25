//! Whole states instead of changes: what the state machine of changes says and hears, translated for a control plane that speaks only
//! `StreamAggregatedResources`.
//!
//! Clusters and listeners that a response does not name are gone; of other types a response may leave out what has not changed
//! (xDS protocol, "Resource update behavior").

use crate::state::{Held, is_wildcard};
use policies_xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use policies_xds::protobuf::Any;
use prost::{Message, Name};
use sidecar_model::ResourceType;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The translation of one connection after another.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    types: HashMap<String, Told>,
}

/// What was said about one type.
#[derive(Debug, Default)]
struct Told {
    names: BTreeSet<String>,
    /// The last version that was accepted whole.
    version: String,
    /// Version and nonce of the last response.
    received: String,
    nonce: String,
}

/// Every type of resource has its name in the first field.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

// === impl Whole ===

impl Whole {
    /// A new stream: nothing has been said on it. Versions that were accepted stay.
    pub(crate) fn open(&mut self) {
        for told in self.types.values_mut() {
            told.names.clear();
            told.nonce.clear();
        }
    }

    /// A request as this protocol has it: all names, and the version that is in force.
    pub(crate) fn request(&mut self, request: DeltaDiscoveryRequest) -> DiscoveryRequest {
        let told = self.types.entry(request.type_url.clone()).or_default();
        told.names.extend(request.resource_names_subscribe);
        for name in &request.resource_names_unsubscribe {
            told.names.remove(name);
        }
        let accepts = !request.response_nonce.is_empty() && request.error_detail.is_none();
        if accepts {
            told.version.clone_from(&told.received);
        }
        DiscoveryRequest {
            version_info: told.version.clone(),
            node: request.node,
            resource_names: told.names.iter().cloned().collect(),
            type_url: request.type_url,
            response_nonce: told.nonce.clone(),
            error_detail: request.error_detail,
            ..Default::default()
        }
    }

    /// A response as changes to what is `held` of its type.
    pub(crate) fn response(
        &mut self,
        response: DiscoveryResponse,
        held: &HashMap<Arc<str>, Held>,
    ) -> DeltaDiscoveryResponse {
        let told = self.types.entry(response.type_url.clone()).or_default();
        told.received.clone_from(&response.version_info);
        told.nonce.clone_from(&response.nonce);
        let version = &response.version_info;
        let resources: Vec<Resource> =
            response.resources.into_iter().map(|any| resource(any, version)).collect();
        let named: BTreeSet<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
        let whole = ResourceType::from_type_url(&response.type_url).is_some_and(is_wildcard);
        let gone = held.keys().filter(|name| whole && !named.contains(&***name));
        DeltaDiscoveryResponse {
            system_version_info: response.version_info.clone(),
            removed_resources: gone.map(ToString::to_string).collect(),
            resources,
            type_url: response.type_url,
            nonce: response.nonce,
            ..Default::default()
        }
    }
}

/// A resource with its name, which may come in a wrapper. One without a name keeps none, and is refused for that later.
fn resource(any: Any, version: &str) -> Resource {
    if any.type_url == Resource::type_url()
        && let Ok(wrapped) = Resource::decode(any.value.as_slice())
    {
        return Resource { version: version.to_owned(), ..wrapped };
    }
    let name = Named::decode(any.value.as_slice()).map(|named| named.name).unwrap_or_default();
    Resource { name, version: version.to_owned(), resource: Some(any), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::cluster::Cluster;
    use policies_xds::rpc::Status;
    use policies_xds::type_url::{CLUSTER, ENDPOINTS};

    fn cluster(name: &str) -> Any {
        policies_xds::any(&Cluster { name: name.into(), ..Default::default() })
    }

    fn response(type_url: &str, version: &str, resources: Vec<Any>) -> DiscoveryResponse {
        let nonce = format!("n{version}");
        DiscoveryResponse {
            version_info: version.into(),
            type_url: type_url.into(),
            nonce,
            resources,
            ..Default::default()
        }
    }

    fn said(type_url: &str, nonce: &str, error: bool) -> DeltaDiscoveryRequest {
        let error_detail = error.then(Status::default);
        DeltaDiscoveryRequest {
            type_url: type_url.into(),
            response_nonce: nonce.into(),
            error_detail,
            ..Default::default()
        }
    }

    #[test]
    fn versions_follow_what_was_accepted_and_nonces_what_was_heard() {
        let mut whole = Whole::default();
        let first = whole.request(said(CLUSTER, "", false));
        assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("", ""));
        whole.response(response(CLUSTER, "1", vec![cluster("a")]), &HashMap::new());
        let accepted = whole.request(said(CLUSTER, "n1", false));
        assert_eq!((accepted.version_info.as_str(), accepted.response_nonce.as_str()), ("1", "n1"));
        whole.response(response(CLUSTER, "2", vec![]), &HashMap::new());
        let refused = whole.request(said(CLUSTER, "n2", true));
        assert_eq!((refused.version_info.as_str(), refused.response_nonce.as_str()), ("1", "n2"));
        assert!(refused.error_detail.is_some());
        whole.open();
        let again = whole.request(said(CLUSTER, "", false));
        assert_eq!((again.version_info.as_str(), again.response_nonce.as_str()), ("1", ""));
    }

    #[test]
    fn names_add_up() {
        let mut whole = Whole::default();
        let request = |new: &[&str], gone: &[&str]| DeltaDiscoveryRequest {
            type_url: ENDPOINTS.into(),
            resource_names_subscribe: new.iter().map(ToString::to_string).collect(),
            resource_names_unsubscribe: gone.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        assert_eq!(whole.request(request(&["b", "a"], &[])).resource_names, ["a", "b"]);
        assert_eq!(whole.request(request(&["c"], &["a"])).resource_names, ["b", "c"]);
    }

    #[test]
    fn what_is_missing_is_gone_where_states_are_whole() {
        let held = |name: &str| (Arc::from(name), Held { version: "1".into(), message: Box::default() });
        let held = HashMap::from([held("a"), held("b")]);
        let mut whole = Whole::default();
        let wrapped = Resource { name: "c".into(), resource: Some(cluster("c")), ..Default::default() };
        let all = vec![cluster("a"), policies_xds::any(&wrapped)];
        let changes = whole.response(response(CLUSTER, "2", all), &held);
        let names: Vec<_> = changes.resources.iter().map(|it| (&*it.name, &*it.version)).collect();
        assert_eq!(names, [("a", "2"), ("c", "2")]);
        assert_eq!(changes.removed_resources, ["b"]);
        assert!(whole.response(response(ENDPOINTS, "2", vec![]), &held).removed_resources.is_empty());
    }
}
