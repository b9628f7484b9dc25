//! Pods' network namespaces on one node: an address, a link to the node, and interception rules before any container starts.
//!
//! A pod has a point-to-point link to its node and no bridge: everything it sends is routed by the node, so one set of rules there sees
//! it all. Addresses are remembered in files beside the sandboxes, which live exactly as long as the namespaces do.

mod address;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use self::address::{AddressBook, Record};
use crate::fabric::{
    Fabric, NodeNet, apply, inside, is_namespace, link_index, loopback, open_socket, quiet_ipv6, require_link,
};
use crate::netlink::route::{self, Hop};
use crate::netns::NetNs;
use crate::{Interception, NetworkError, nft};

/// What network a pod wants.
#[derive(Clone, Debug)]
pub struct PodNetRequest {
    /// The pod's UID: names its sandbox directory.
    pub uid: String,
    /// The pod's namespace, for the record.
    pub namespace: String,
    /// The pod's name, for the record.
    pub name: String,
    /// What to capture for the pod's sidecar, if it has one.
    pub interception: Option<Interception>,
    /// Whether the pod shares the node's network.
    pub host_network: bool,
}

/// The network a pod has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNet {
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Where its network namespace is mounted.
    pub net_ns: PathBuf,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The node's address on the pod's side; the pod's own address for a pod on the node's network.
    pub gateway: Ipv4Addr,
}

/// The pods' network of one node. Cloning shares it.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: NodeNet,
    namespace: NetNs,
    sandboxes: PathBuf,
    addresses: Mutex<AddressBook>,
}

// === impl PodNetwork ===

impl PodNetwork {
    /// Opens the pods' network of a node and finds the pods that are there. Records of pods whose namespace is gone are dropped.
    ///
    /// # Errors
    /// When the node's namespace is missing or records cannot be read.
    pub fn open(fabric: &Fabric, node: &str) -> Result<Self, NetworkError> {
        let node = fabric
            .node(node)
            .ok_or_else(|| NetworkError::Config(format!("no node `{node}` in the fabric")))?;
        let namespace =
            NetNs::open(&node.net_ns).map_err(NetworkError::io("cannot open the node's namespace"))?;
        let sandboxes = sandboxes(fabric.run_dir());
        let directory = records(fabric.run_dir()).join(&node.name);
        let mut addresses = AddressBook::open(&directory, node.pod_cidr)?;
        for record in addresses.all() {
            if !is_namespace(&sandboxes.join(&record.uid).join("net")) {
                addresses.release(&record.uid)?;
            }
        }
        let shared = Shared { node: node.clone(), namespace, sandboxes, addresses: Mutex::new(addresses) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Gives a pod its network, or finds the one it has. Takes a few milliseconds on a thread of its own. When it fails, or the future
    /// is dropped, [`PodNetwork::teardown`] clears what was made.
    ///
    /// # Errors
    /// When addresses ran out or the kernel refuses a step; nothing of the pod is left then.
    pub async fn setup(&self, request: PodNetRequest) -> Result<PodNet, NetworkError> {
        if request.host_network {
            return Ok(self.shared.host_network(request));
        }
        check_uid(&request.uid)?;
        let shared = self.shared.clone();
        blocking(move || shared.setup(&request)).await
    }

    /// Removes a pod's namespace, link and address. A pod that is not there is fine.
    ///
    /// # Errors
    /// When a mount, link or file cannot be removed; call it again then.
    pub async fn teardown(&self, uid: &str) -> Result<(), NetworkError> {
        check_uid(uid)?;
        let (shared, uid) = (self.shared.clone(), uid.to_owned());
        blocking(move || shared.teardown(&uid)).await
    }

    /// The pods that have a network of their own here.
    #[must_use]
    pub fn existing(&self) -> Vec<PodNet> {
        let records = self.shared.addresses.lock().all();
        records.into_iter().map(|record| self.shared.pod_net(record)).collect()
    }

    /// The node these pods are on.
    #[must_use]
    pub fn node(&self) -> &NodeNet {
        &self.shared.node
    }
}

// === impl Shared ===

impl Shared {
    fn host_network(&self, request: PodNetRequest) -> PodNet {
        let PodNetRequest { uid, namespace, name, .. } = request;
        let node = &self.node;
        PodNet { uid, namespace, name, net_ns: node.net_ns.clone(), ip: node.address, gateway: node.address }
    }

    fn pod_net(&self, record: Record) -> PodNet {
        let net_ns = self.net_ns(&record.uid);
        let Record { uid, namespace, name, ip } = record;
        PodNet { uid, namespace, name, net_ns, ip, gateway: self.node.gateway() }
    }

    fn net_ns(&self, uid: &str) -> PathBuf {
        self.sandboxes.join(uid).join("net")
    }

    fn setup(&self, request: &PodNetRequest) -> Result<PodNet, NetworkError> {
        let path = self.net_ns(&request.uid);
        let known = self.addresses.lock().find(&request.uid);
        if let Some(record) = known {
            // A record is marked ready once everything was made; what a crash left half made is made again.
            if is_namespace(&path)
                && self.is_linked(&request.uid)?
                && self.addresses.lock().is_ready(&request.uid)
            {
                return Ok(self.pod_net(record));
            }
            self.teardown(&request.uid)?;
        }
        let record = self.addresses.lock().allocate(&request.uid, &request.namespace, &request.name)?;
        let made =
            self.make(&path, &record, request).and_then(|()| self.addresses.lock().mark_ready(&record));
        if let Err(error) = made {
            if let Err(leftover) = self.teardown(&request.uid) {
                tracing::warn!(pod.uid = request.uid, error = %leftover, "Pod network half made and not removed");
            }
            return Err(error);
        }
        Ok(self.pod_net(record))
    }

    fn make(&self, path: &Path, record: &Record, request: &PodNetRequest) -> Result<(), NetworkError> {
        NetNs::remove(path).map_err(NetworkError::io("cannot clear a pod's old namespace"))?;
        let namespace =
            NetNs::create(path).map_err(NetworkError::io("cannot create a pod's network namespace"))?;
        let link = link_name(&record.uid);
        inside(&namespace, || self.build_pod(record, &link, request.interception.as_ref()))?;
        inside(&self.namespace, || {
            let mut socket = open_socket()?;
            let index = require_link(&link)?;
            let hop = Hop::Link { index, source: Some(self.node.gateway()) };
            let steps = vec![route::set_up(index), route::add_route(host(record.ip), hop)];
            apply(&mut socket, "cannot route to a pod", steps)
        })
    }

    /// Runs inside the pod's namespace. The rules come first: nothing may pass before they stand.
    fn build_pod(
        &self,
        record: &Record,
        link: &str,
        interception: Option<&Interception>,
    ) -> Result<(), NetworkError> {
        if let Some(interception) = interception {
            nft::load("the interception rules", &interception.ruleset())?;
        }
        quiet_ipv6()?;
        let mut socket = open_socket()?;
        let veth = route::add_veth("eth0", link, self.namespace.as_fd());
        apply(&mut socket, "cannot link a pod to its node", vec![route::set_up(loopback()?), veth])?;
        let index = require_link("eth0")?;
        let gateway = self.node.gateway();
        apply(
            &mut socket,
            "cannot give a pod its address",
            vec![
                route::add_address(index, record.ip, 32, libc::RT_SCOPE_UNIVERSE),
                route::set_up(index),
                route::add_route(host(gateway), Hop::Link { index, source: None }),
                // Leads to the node and ends there for every address outside the cluster: the node has no default route.
                route::add_route(Ipv4Net::default(), Hop::Gateway { address: gateway, index }),
            ],
        )
    }

    fn is_linked(&self, uid: &str) -> Result<bool, NetworkError> {
        let link = link_name(uid);
        inside(&self.namespace, || Ok(link_index(&link).is_some()))
    }

    fn teardown(&self, uid: &str) -> Result<(), NetworkError> {
        let link = link_name(uid);
        // The link first: a process that still holds the namespace must not keep the address reachable.
        inside(&self.namespace, || {
            if link_index(&link).is_none() {
                return Ok(());
            }
            match apply(&mut open_socket()?, "cannot delete a pod's link", vec![route::delete_link(&link)]) {
                Err(NetworkError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                result => result,
            }
        })?;
        NetNs::remove(&self.net_ns(uid))
            .map_err(NetworkError::io("cannot remove a pod's network namespace"))?;
        // Fails while the pod's other namespaces are still mounted there, which is fine.
        let _not_empty = fs::remove_dir(self.sandboxes.join(uid));
        self.addresses.lock().release(uid)
    }
}

/// Unmounts and deletes every sandbox, of every node, and the address records.
pub(crate) fn remove_sandboxes(run_dir: &Path) -> Result<(), NetworkError> {
    if let Ok(entries) = fs::read_dir(sandboxes(run_dir)) {
        for entry in entries.flatten() {
            let path = entry.path().join("net");
            NetNs::remove(&path)
                .map_err(NetworkError::io(format!("cannot remove the namespace {}", path.display())))?;
            let _not_empty = fs::remove_dir(entry.path());
        }
    }
    match fs::remove_dir_all(records(run_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::io("cannot remove the pod address records")(error))
        }
        _ => Ok(()),
    }
}

fn sandboxes(run_dir: &Path) -> PathBuf {
    run_dir.join("sandboxes")
}

fn records(run_dir: &Path) -> PathBuf {
    run_dir.join("addresses")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| NetworkError::io("a pod's network thread ended early")(io::Error::other(error)))?
}

fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 32)
}

/// The node's side of a pod's link. Linux allows 15 bytes; 44 bits of a hash of the UID do not collide among a node's pods.
fn link_name(uid: &str) -> String {
    // FNV-1a: the same in every version of this program, since a restarted one must find its links.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("veth{:011x}", hash >> 20)
}

/// A UID becomes a directory's name, so it must not be able to name another place.
fn check_uid(uid: &str) -> Result<(), NetworkError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if uid.is_empty() || uid.len() > 128 || !uid.bytes().all(fits) {
        return Err(NetworkError::Config(format!(
            "pod UID `{uid}` must be 1 to 128 letters, digits and dashes"
        )));
    }
    Ok(())
}
