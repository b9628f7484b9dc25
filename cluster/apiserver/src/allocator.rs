//! Cluster addresses and node ports of Services: which are taken, choosing free ones, releasing.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};

use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::{
    api::Api,
    config::Error,
    error::{ApiError, ApiResult, FieldError},
    kinds::Kind,
    object::{self, integer, items, text},
};

/// 10.96.0.0/16.
const BASE: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const SIZE: u32 = 1 << 16;
/// Addresses below this offset are given out only when asked for by name (Kubernetes: 256 of a /16).
const STATIC_BAND: u32 = 256;
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// What is taken. The owner of each is a Service's UID.
#[derive(Debug, Default)]
pub(crate) struct Allocator(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    addresses: HashMap<Ipv4Addr, String>,
    ports: HashMap<(u16, String), String>,
}

/// What one write has taken; given back when dropped, unless the write happened.
#[derive(Default)]
pub(crate) struct Claim {
    api: Option<Arc<Api>>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<(u16, String)>,
    /// To be given back when the write happened.
    left: Holdings,
}

#[derive(Debug, Default)]
struct Holdings {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<(u16, String)>,
}

// === impl Allocator ===

impl Allocator {
    /// Marks what stored Services hold.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn load(&self, api: &Api) -> Result<(), Error> {
        let Some(kind) = api.kinds.get("", "v1", "services") else { return Ok(()) };
        let page = api.store.list(&kind.prefix(), None, 0, None)?;
        let mut taken = self.0.lock();
        for service in page.items.iter().filter_map(|kv| object::decode(kv).ok()) {
            let uid = object::uid(&service);
            let held = Holdings::of(&service);
            taken.addresses.extend(held.addresses.into_iter().map(|a| (a, uid.to_owned())));
            taken.ports.extend(held.ports.into_iter().map(|p| (p, uid.to_owned())));
        }
        Ok(())
    }
}

// === impl Taken ===

impl Taken {
    fn free_address(&self) -> Option<Ipv4Addr> {
        let mut rng = rand::rng();
        let at = |offset: u32| Ipv4Addr::from(BASE + offset);
        let start = rng.random_range(STATIC_BAND..SIZE - 1);
        let upper = (start..SIZE - 1).chain(STATIC_BAND..start);
        upper.chain(11..STATIC_BAND).map(at).find(|address| !self.addresses.contains_key(address))
    }

    fn free_port(&self, protocol: &str) -> Option<u16> {
        let mut rng = rand::rng();
        let start = rng.random_range(NODE_PORTS);
        (start..=*NODE_PORTS.end())
            .chain(*NODE_PORTS.start()..start)
            .find(|port| !self.ports.contains_key(&(*port, protocol.to_owned())))
    }
}

// === impl Holdings ===

impl Holdings {
    fn of(service: &Value) -> Self {
        let addresses = text(service, "/spec/clusterIP").parse().ok().into_iter().collect();
        let ports = items(service, "/spec/ports").iter().filter_map(|port| {
            let number = integer(port, "/nodePort").and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)?;
            Some((number, text(port, "/protocol").to_owned()))
        });
        Self { addresses, ports: ports.collect() }
    }
}

fn invalid(kind: &Kind, object: &Value, field: &str, value: &Value, why: &str) -> ApiError {
    ApiError::invalid(kind, object::name(object), &[FieldError::invalid(field, value.clone(), why)])
}

// === impl Claim ===

impl Claim {
    /// Fills in a Service's address and node ports; other kinds need nothing.
    ///
    /// # Errors
    /// 422 for addresses and ports that are taken, out of range, or may not change.
    pub(crate) fn take(
        api: &Arc<Api>,
        kind: &Kind,
        object: &mut Value,
        old: Option<&Value>,
    ) -> ApiResult<Self> {
        if !kind.is("", "services") {
            return Ok(Self::default());
        }
        let mut claim = Self::default();
        claim.api = Some(Arc::clone(api));
        claim.address(kind, object, old)?;
        claim.node_ports(kind, object, old)?;
        if let Some(old) = old {
            let (before, now) = (Holdings::of(old), Holdings::of(object));
            claim.left.addresses = before.addresses.difference(&now.addresses).copied().collect();
            claim.left.ports = before.ports.difference(&now.ports).cloned().collect();
        }
        Ok(claim)
    }

    fn address(&mut self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> ApiResult<()> {
        let uid = object::uid(object).to_owned();
        if object["spec"]["type"] == "ExternalName" {
            for key in ["clusterIP", "clusterIPs"] {
                object::remove(&mut object["spec"], key);
            }
            return Ok(());
        }
        let before = old.map_or("", |old| text(old, "/spec/clusterIP")).to_owned();
        let mut wanted = text(object, "/spec/clusterIP").to_owned();
        if wanted.is_empty() {
            wanted.clone_from(&before);
        }
        if !before.is_empty() && wanted != before {
            let why = "field is immutable";
            return Err(invalid(kind, object, "spec.clusterIPs[0]", &json!([wanted]), why));
        }
        if wanted != "None" && wanted != before || wanted.is_empty() {
            let Some(api) = self.api.clone() else { return Ok(()) };
            let mut taken = api.allocator.0.lock();
            let address = if wanted.is_empty() {
                taken
                    .free_address()
                    .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?
            } else {
                asked_address(kind, object, &wanted, &taken)?
            };
            taken.addresses.insert(address, uid);
            self.addresses.push(address);
            wanted = address.to_string();
        }
        object["spec"]["clusterIPs"] = json!([wanted]);
        object["spec"]["clusterIP"] = json!(wanted);
        Ok(())
    }

    fn node_ports(&mut self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> ApiResult<()> {
        let uid = object::uid(object).to_owned();
        let wants = matches!(text(object, "/spec/type"), "NodePort" | "LoadBalancer")
            && object["spec"]["allocateLoadBalancerNodePorts"] != false;
        let Some(api) = self.api.clone() else { return Ok(()) };
        let ports = items(object, "/spec/ports").to_vec();
        let mut taken = api.allocator.0.lock();
        let mine: HashSet<(u16, String)> = old.map(Holdings::of).unwrap_or_default().ports;
        let mut filled = Vec::new();
        for (at, mut port) in ports.into_iter().enumerate() {
            if !wants {
                object::remove(&mut port, "nodePort");
                filled.push(port);
                continue;
            }
            let protocol = text(&port, "/protocol").to_owned();
            let field = format!("spec.ports[{at}].nodePort");
            let number = match integer(&port, "/nodePort").filter(|n| *n != 0).or_else(|| kept(old, &port)) {
                Some(number) => {
                    let fits = u16::try_from(number).ok().filter(|n| NODE_PORTS.contains(n));
                    let Some(number) = fits else {
                        let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                        return Err(invalid(kind, object, &field, &json!(number), why));
                    };
                    let key = (number, protocol.clone());
                    if !mine.contains(&key) && taken.ports.contains_key(&key) {
                        return Err(invalid(
                            kind,
                            object,
                            &field,
                            &json!(number),
                            "provided port is already allocated",
                        ));
                    }
                    number
                }
                None => {
                    taken.free_port(&protocol).ok_or_else(|| ApiError::internal("no node port is free"))?
                }
            };
            let key = (number, protocol);
            if !mine.contains(&key) {
                taken.ports.insert(key.clone(), uid.clone());
                self.ports.push(key);
            }
            port["nodePort"] = json!(number);
            filled.push(port);
        }
        if !filled.is_empty() {
            object["spec"]["ports"] = Value::Array(filled);
        }
        Ok(())
    }

    /// The write happened: what was taken stays taken, what the old object alone held is free.
    pub(crate) fn keep(mut self) {
        self.addresses.clear();
        self.ports.clear();
        if let Some(api) = &self.api {
            let mut taken = api.allocator.0.lock();
            taken.addresses.retain(|address, _| !self.left.addresses.contains(address));
            taken.ports.retain(|port, _| !self.left.ports.contains(port));
        }
    }
}

/// The node port that the same port had before.
fn kept(old: Option<&Value>, port: &Value) -> Option<i64> {
    let old = items(old?, "/spec/ports")
        .iter()
        .find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"])?;
    integer(old, "/nodePort")
}

fn asked_address(kind: &Kind, object: &Value, wanted: &str, taken: &Taken) -> ApiResult<Ipv4Addr> {
    let refuse = |why: &str| {
        let why = format!("failed to allocate IP {wanted}: {why}");
        invalid(kind, object, "spec.clusterIPs", &json!([wanted]), &why)
    };
    let address: Ipv4Addr = wanted.parse().map_err(|_| refuse("not an address"))?;
    let offset = u32::from(address).wrapping_sub(BASE);
    if offset == 0 || offset >= SIZE - 1 {
        return Err(refuse(
            "the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ));
    }
    if taken.addresses.contains_key(&address) {
        return Err(refuse("provided IP is already allocated"));
    }
    Ok(address)
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.addresses.is_empty() && self.ports.is_empty() {
            return;
        }
        if let Some(api) = &self.api {
            let mut taken = api.allocator.0.lock();
            for address in &self.addresses {
                taken.addresses.remove(address);
            }
            for port in &self.ports {
                taken.ports.remove(port);
            }
        }
    }
}

/// Frees what a removed Service held.
pub(crate) fn release(api: &Api, kind: &Kind, object: &Value) {
    if !kind.is("", "services") {
        return;
    }
    let (held, uid) = (Holdings::of(object), object::uid(object));
    let mut taken = api.allocator.0.lock();
    taken.addresses.retain(|address, owner| owner != uid || !held.addresses.contains(address));
    taken.ports.retain(|port, owner| owner != uid || !held.ports.contains(port));
}
