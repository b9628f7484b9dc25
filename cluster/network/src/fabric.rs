//! The fabric and its nodes: named namespaces, one bridge, a link and routes a node, and no way out.
//!
//! `ensure` finds what is there and adds what is missing, so a restarted cluster keeps its nodes and the pods in them. `remove` needs
//! nothing but the cluster's name.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::net::if_::if_nametoindex;

use crate::NetworkError;
use crate::dns::DNS_ADDRESS;
use crate::netlink::NetlinkSocket;
use crate::netlink::message::Message;
use crate::netlink::route::{self, Hop};
use crate::netns::{self, NetNs};
use crate::pod::remove_sandboxes;

/// Where pods' addresses come from.
pub const POD_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Where services' addresses come from.
pub const SERVICE_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// The fabric's own address on the bridge.
pub(crate) const FABRIC_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
const BRIDGE: &str = "br0";
const NETNS_DIRECTORY: &str = "/run/netns";
/// Node addresses are 172.30.0.(10+i) and pod ranges 10.244.i.0/24.
const NODES_MAX: u8 = 200;
/// Linux allows 15 bytes in a link's name, and the fabric names a link after each node.
const NODE_NAME_BYTES_MAX: usize = 15;

/// What fabric to make.
#[derive(Clone, Debug)]
pub struct FabricConfig {
    /// The cluster's name: prefix of its namespaces.
    pub name: String,
    /// Where sandboxes and address records live.
    pub run_dir: PathBuf,
    /// How many nodes, named `node1` and up.
    pub nodes: u8,
}

/// A node as the network sees it.
#[derive(Clone, Debug)]
pub struct NodeNet {
    /// The Node's name, `node<i>`.
    pub name: String,
    /// Its number, from 1.
    pub index: u8,
    /// Where its namespace is mounted.
    pub net_ns: PathBuf,
    /// Its address in the fabric.
    pub address: Ipv4Addr,
    /// Where its pods' addresses come from.
    pub pod_cidr: Ipv4Net,
}

/// The namespaces of one cluster.
#[derive(Clone, Debug)]
pub struct Fabric {
    name: String,
    run_dir: PathBuf,
    net_ns: PathBuf,
    nodes: Vec<NodeNet>,
}

// === impl NodeNet ===

impl NodeNet {
    fn new(cluster: &str, index: u8) -> Self {
        let name = format!("node{index}");
        Self {
            net_ns: Path::new(NETNS_DIRECTORY).join(format!("{cluster}-{name}")),
            name,
            index,
            address: Ipv4Addr::new(172, 30, 0, 10 + index),
            pod_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, index, 0), 24),
        }
    }

    /// The node's own address in its pod range: the gateway of its pods.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.pod_cidr.network().octets();
        Ipv4Addr::new(a, b, c, 1)
    }
}

// === impl Fabric ===

impl Fabric {
    /// Creates whatever is missing of the cluster's namespaces, links, addresses and routes. Needs root; blocks for some milliseconds.
    ///
    /// # Errors
    /// When a name or the number of nodes does not fit, or the kernel refuses a step.
    pub fn ensure(config: &FabricConfig) -> Result<Self, NetworkError> {
        check(config)?;
        let fabric = Self {
            name: config.name.clone(),
            run_dir: config.run_dir.clone(),
            net_ns: fabric_path(&config.name),
            nodes: (1..=config.nodes).map(|index| NodeNet::new(&config.name, index)).collect(),
        };
        NetNs::prepare(Path::new(NETNS_DIRECTORY))
            .map_err(NetworkError::io(format!("cannot prepare {NETNS_DIRECTORY}")))?;
        let namespace = NetNs::ensure(&fabric.net_ns)
            .map_err(NetworkError::io(format!("cannot create the namespace {}", fabric.net_ns.display())))?;
        inside(&namespace, || fabric.build_bridge())?;
        for node in &fabric.nodes {
            let node_namespace = NetNs::ensure(&node.net_ns).map_err(NetworkError::io(format!(
                "cannot create the namespace {}",
                node.net_ns.display()
            )))?;
            inside(&node_namespace, || fabric.build_node(node, &namespace))?;
            inside(&namespace, || attach_node(node))?;
        }
        Ok(fabric)
    }

    /// Removes every namespace, sandbox mount and record of the cluster called `name`. Nothing there is fine; links die with them.
    ///
    /// # Errors
    /// When a mount or file cannot be removed; what is left is removed by the next call.
    pub fn remove(name: &str, run_dir: &Path) -> Result<(), NetworkError> {
        remove_sandboxes(run_dir)?;
        let nodes = present_nodes(name).into_iter().map(|index| NodeNet::new(name, index).net_ns);
        for path in nodes.chain([fabric_path(name)]) {
            NetNs::remove(&path)
                .map_err(NetworkError::io(format!("cannot remove the namespace {}", path.display())))?;
        }
        NetNs::tidy(Path::new(NETNS_DIRECTORY));
        Ok(())
    }

    /// Moves the calling thread, and the threads it starts later, into the fabric.
    ///
    /// # Errors
    /// When the namespace is gone or may not be entered.
    pub fn enter(&self) -> Result<(), NetworkError> {
        self.namespace()?.enter().map_err(NetworkError::io("cannot enter the fabric's namespace"))
    }

    /// A handle on the fabric's namespace.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn namespace(&self) -> Result<NetNs, NetworkError> {
        NetNs::open(&self.net_ns).map_err(NetworkError::io("cannot open the fabric's namespace"))
    }

    /// Where the fabric's namespace is mounted.
    #[must_use]
    pub fn net_ns(&self) -> &Path {
        &self.net_ns
    }

    /// The fabric's own address, where the API server listens for nodes and pods.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        FABRIC_ADDRESS
    }

    /// The nodes, in order of their number.
    #[must_use]
    pub fn nodes(&self) -> &[NodeNet] {
        &self.nodes
    }

    /// The node called `name`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeNet> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where sandboxes and address records live.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    fn build_bridge(&self) -> Result<(), NetworkError> {
        let mut socket = open_socket()?;
        quiet_ipv6()?;
        write_sysctl("net/ipv4/ip_forward", "0")?;
        if link_index(BRIDGE).is_none() {
            apply(&mut socket, "cannot create the bridge", vec![route::add_bridge(BRIDGE)])?;
        }
        let bridge = require_link(BRIDGE)?;
        apply(
            &mut socket,
            "cannot set up the bridge",
            vec![
                route::set_up(loopback()?),
                route::add_address(bridge, FABRIC_ADDRESS, 24, libc::RT_SCOPE_UNIVERSE),
                route::set_up(bridge),
                route::add_route(POD_CIDR, Hop::Unreachable),
            ],
        )?;
        let mut routes: Vec<Message> = self
            .nodes
            .iter()
            .map(|node| {
                route::add_route(node.pod_cidr, Hop::Gateway { address: node.address, index: bridge })
            })
            .collect();
        // Services' addresses are translated on the first node: the API server calls webhooks through it.
        if let Some(first) = self.nodes.first() {
            routes
                .push(route::add_route(SERVICE_CIDR, Hop::Gateway { address: first.address, index: bridge }));
        }
        apply(&mut socket, "cannot add the fabric's routes", routes)
    }

    /// Runs inside the node's namespace. The link's other end goes to the fabric under the node's name.
    fn build_node(&self, node: &NodeNet, fabric: &NetNs) -> Result<(), NetworkError> {
        let mut socket = open_socket()?;
        quiet_ipv6()?;
        write_sysctl("net/ipv4/ip_forward", "1")?;
        // A pod that calls an address outside the cluster is told so at once, each time.
        write_sysctl("net/ipv4/icmp_ratelimit", "0")?;
        write_sysctl("net/ipv4/icmp_ratemask", "0")?;
        write_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        write_sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        if link_index("eth0").is_none() {
            let veth = route::add_veth("eth0", &node.name, fabric.as_fd());
            apply(&mut socket, "cannot link a node to the fabric", vec![veth])?;
        }
        let uplink = require_link("eth0")?;
        let lo = loopback()?;
        apply(
            &mut socket,
            "cannot give a node its address",
            vec![
                route::set_up(lo),
                route::add_address(uplink, node.address, 24, libc::RT_SCOPE_UNIVERSE),
                route::add_address(lo, node.gateway(), 32, libc::RT_SCOPE_HOST),
                route::add_address(lo, DNS_ADDRESS, 32, libc::RT_SCOPE_HOST),
                route::set_up(uplink),
                route::add_route(POD_CIDR, Hop::Unreachable),
                // Traffic the node itself sends to a service is routed before it is translated: any link that is up will do.
                route::add_route(SERVICE_CIDR, Hop::Link { index: uplink, source: Some(node.address) }),
            ],
        )?;
        let others = self.nodes.iter().filter(|other| other.index != node.index);
        let routes = others
            .map(|other| {
                route::add_route(other.pod_cidr, Hop::Gateway { address: other.address, index: uplink })
            })
            .collect();
        apply(&mut socket, "cannot add a node's routes", routes)
    }
}

/// Runs inside the fabric's namespace.
fn attach_node(node: &NodeNet) -> Result<(), NetworkError> {
    let mut socket = open_socket()?;
    let (port, bridge) = (require_link(&node.name)?, require_link(BRIDGE)?);
    apply(&mut socket, "cannot attach a node to the bridge", vec![route::set_master_and_up(port, bridge)])
}

/// The numbers of the nodes a namespace's file is there for.
fn present_nodes(name: &str) -> Vec<u8> {
    let Ok(entries) = fs::read_dir(NETNS_DIRECTORY) else { return Vec::new() };
    let prefix = format!("{name}-node");
    let number = |file: std::ffi::OsString| file.to_str()?.strip_prefix(&prefix)?.parse().ok();
    entries.flatten().filter_map(|entry| number(entry.file_name())).collect()
}

fn check(config: &FabricConfig) -> Result<(), NetworkError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if config.name.is_empty() || config.name.len() > 32 || !config.name.bytes().all(fits) {
        let name = &config.name;
        return Err(NetworkError::Config(format!(
            "cluster name `{name}` must be 1 to 32 lower-case letters, digits and dashes"
        )));
    }
    if config.nodes == 0 || config.nodes > NODES_MAX {
        return Err(NetworkError::Config(format!(
            "number of nodes {} must be 1 to {NODES_MAX}",
            config.nodes
        )));
    }
    if let Some(most) = present_nodes(&config.name).into_iter().max().filter(|most| *most > config.nodes) {
        // Their pods may be running, and nobody would look after them.
        return Err(NetworkError::Config(format!(
            "cluster `{}` has {most} nodes: run it with as many, or remove it first",
            config.name
        )));
    }
    debug_assert!(
        format!("node{}", config.nodes).len() <= NODE_NAME_BYTES_MAX,
        "a node's name fits a link's"
    );
    Ok(())
}

fn fabric_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIRECTORY).join(format!("{name}-fabric"))
}

/// Runs `work` inside `namespace` and flattens the two errors.
pub(crate) fn inside<T: Send>(
    namespace: &NetNs,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    namespace.run_blocking(work).map_err(NetworkError::io("cannot enter a network namespace"))?
}

/// Sends route requests; the error names the action.
pub(crate) fn apply(
    socket: &mut NetlinkSocket,
    action: &'static str,
    messages: Vec<Message>,
) -> Result<(), NetworkError> {
    socket.request(messages).map_err(|refused| {
        let step = refused.index + 1;
        NetworkError::io(format!("{action} (step {step})"))(refused.source)
    })
}

pub(crate) fn open_socket() -> Result<NetlinkSocket, NetworkError> {
    NetlinkSocket::route().map_err(NetworkError::io("cannot open a netlink socket"))
}

/// The index of a link of the calling thread's namespace.
pub(crate) fn link_index(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

pub(crate) fn require_link(name: &str) -> Result<u32, NetworkError> {
    if_nametoindex(name)
        .map_err(io::Error::from)
        .map_err(NetworkError::io(format!("cannot find the link {name}")))
}

pub(crate) fn loopback() -> Result<u32, NetworkError> {
    require_link("lo")
}

/// Links made from now on get no IPv6 address, so none announces itself. The loopback link keeps its own.
pub(crate) fn quiet_ipv6() -> Result<(), NetworkError> {
    match write_sysctl("net/ipv6/conf/default/disable_ipv6", "1") {
        // A kernel without IPv6 has nothing to keep quiet.
        Err(NetworkError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes a setting of the calling thread's namespace.
pub(crate) fn write_sysctl(key: &str, value: &str) -> Result<(), NetworkError> {
    fs::write(Path::new("/proc/sys").join(key), value)
        .map_err(NetworkError::io(format!("cannot set {} to {value}", key.replace('/', "."))))
}

/// Whether a namespace is mounted there.
pub(crate) fn is_namespace(path: &Path) -> bool {
    netns::is_mounted(path)
}
