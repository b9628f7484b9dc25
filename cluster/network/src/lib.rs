//! The cluster's network: namespaces of fabric, nodes and pods, interception rules, service maps and DNS.
//!
//! Everything here lives in network namespaces that have no way to the machine's uplink. It knows nothing of containers: a pod is a
//! network namespace under a path, and whoever starts processes joins it.

mod dns;
mod error;
mod fabric;
mod interception;
mod netlink;
mod netns;
mod nft;
mod pod;
mod proxy;
mod services;

pub use dns::{DNS_ADDRESS, run_dns};
pub use error::NetworkError;
pub use fabric::{Fabric, FabricConfig, NodeNet, POD_CIDR, SERVICE_CIDR};
pub use interception::{AnnotationError, Interception, OutboundRanges, Ports};
pub use netns::{NetNs, bind_udp_in, connect_in, listen_in, run_in};
pub use nft::check_tools;
pub use pod::{PodNet, PodNetRequest, PodNetwork};
pub use proxy::run_service_proxy;
pub use services::ServiceCatalog;
