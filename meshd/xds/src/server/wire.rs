//! The two protocols' messages, to and from what a session speaks.

use super::{Node, Protocol};
use crate::session;
use policies_xds::{
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    },
    protobuf::Any,
};

/// A request of either protocol.
pub(super) struct Incoming {
    pub(super) node: Option<Node>,
    pub(super) type_url: String,
    pub(super) request: session::Request,
    /// The whole list of names, in the state-of-the-world protocol.
    pub(super) names: Option<Vec<String>>,
}

/// One of the two protocols.
pub(super) trait Wire: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const PROTOCOL: Protocol;
    fn split(request: Self::Request) -> Incoming;
    fn encode(response: session::Response) -> Self::Response;
}

/// Changes only.
pub(super) struct Delta;
/// All resources of a type in each response.
pub(super) struct StateOfTheWorld;

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn split(request: DeltaDiscoveryRequest) -> Incoming {
        Incoming {
            node: request.node,
            type_url: request.type_url,
            request: session::Request {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                initial_versions: request.initial_resource_versions.into_iter().collect(),
                nonce: request.response_nonce,
                error: request.error_detail.map(|status| status.message),
            },
            names: None,
        }
    }

    fn encode(response: session::Response) -> DeltaDiscoveryResponse {
        let type_url = response.kind.type_url();
        let resources = response.resources.into_iter().map(|resource| Resource {
            name: resource.name.to_string(),
            version: format!("{:x}", resource.hash),
            resource: Some(Any { type_url: type_url.into(), value: resource.value.to_vec() }),
            ..Resource::default()
        });
        DeltaDiscoveryResponse {
            system_version_info: response.version.to_string(),
            resources: resources.collect(),
            type_url: type_url.into(),
            removed_resources: response.removed,
            nonce: response.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

impl Wire for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;

    fn split(request: DiscoveryRequest) -> Incoming {
        Incoming {
            node: request.node,
            type_url: request.type_url,
            request: session::Request {
                nonce: request.response_nonce,
                error: request.error_detail.map(|status| status.message),
                ..session::Request::default()
            },
            names: Some(request.resource_names),
        }
    }

    fn encode(response: session::Response) -> DiscoveryResponse {
        let type_url = response.kind.type_url();
        let any = |value: std::sync::Arc<[u8]>| Any { type_url: type_url.into(), value: value.to_vec() };
        DiscoveryResponse {
            version_info: response.version.to_string(),
            resources: response.resources.into_iter().map(|resource| any(resource.value)).collect(),
            type_url: type_url.into(),
            nonce: response.nonce,
            ..DiscoveryResponse::default()
        }
    }
}
