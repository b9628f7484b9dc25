//! Everything running: backends, the control plane, a real Envoy and our sidecar.
//!
//! All addresses are fixed, so that the endpoint that a hash chooses is the same in every run.

use crate::backend;
use crate::client::{Call, Client};
use crate::generate::{GENERATION_HOST, Generator, listener};
use anyhow::{Context, Result, bail};
use base_tls::CertificateAuthority;
use policies_xds::cluster::CircuitBreakers;
use policies_xds::cluster::Cluster;
use policies_xds::cluster::circuit_breakers::Thresholds;
use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy};
use policies_xds::protobuf::{Any, UInt32Value};
use policies_xds::route::RouteConfiguration;
use policies_xds::{any, core, type_url};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests_support::process::Process;
use tests_support::world::World;
use tests_support::{DEADLINE, envoy, resources, sidecar};
use tokio::task::JoinSet;

const ENVOY: &str = "envoy";
const OURS: &str = "ours";
const FIRST_PORT: u16 = 10_000;
const BACKEND_PORT: u16 = 8080;

/// The two proxies, told the same.
#[derive(Debug)]
pub struct Rig {
    world: World,
    /// Of the real one.
    pub envoy: Process,
    /// Of ours.
    pub ours: Process,
    listeners: u16,
    _backends: JoinSet<()>,
    _dir: tempfile::TempDir,
}

/// Where a listener is in the real Envoy.
#[must_use]
pub fn envoy_address(index: u16) -> SocketAddr {
    ([127, 77, 0, 1], FIRST_PORT + index).into()
}

/// Where it is in ours.
#[must_use]
pub fn our_address(index: u16) -> SocketAddr {
    ([127, 77, 0, 2], FIRST_PORT + index).into()
}

/// The name of a listener's routes.
#[must_use]
pub fn routes_name(index: u16) -> String {
    format!("routes-{index}")
}

impl Rig {
    /// Starts everything with `count` listeners, whose options come from `seed`.
    ///
    /// # Errors
    /// When a program does not start, or refuses something.
    pub async fn start(seed: u64, count: u16) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ca = Arc::new(CertificateAuthority::generate("root", "mesh", Duration::from_secs(86_400))?);
        std::fs::write(dir.path().join("root.pem"), ca.certificate_pem())?;
        std::fs::write(dir.path().join("token"), "token\n")?;
        let backends = backend::start(clusters().into_iter().flat_map(|it| it.2).collect()).await?;
        let world = World::start(&ca).await;
        let mut generator = Generator::new(seed);
        for index in 0..count {
            let addresses = [envoy_address(index), our_address(index)];
            let [theirs, own] = listener(&mut generator, &routes_name(index), addresses);
            world.set(ENVOY, [any(&theirs)]);
            world.set(OURS, [any(&own)]);
        }
        for node in [ENVOY, OURS] {
            world.set(node, cluster_resources());
        }
        let config = dir.path().join("envoy.pb");
        std::fs::write(&config, envoy::discovering(ENVOY, world.plain_port, true))?;
        let envoy = envoy::start(&config, &dir.path().join("envoy.log"))?;
        let ours = sidecar::start(&sidecar::Options {
            pod: OURS,
            control_port: world.port,
            dir: dir.path(),
            first_port: FIRST_PORT - 10,
        })?;
        let rig = Self { world, envoy, ours, listeners: count, _backends: backends, _dir: dir };
        for kind in [type_url::CLUSTER, type_url::ENDPOINTS, type_url::LISTENER] {
            rig.acknowledged(kind).await?;
        }
        Ok(rig)
    }

    async fn acknowledged(&self, kind: &str) -> Result<()> {
        for (node, process) in [(ENVOY, &self.envoy), (OURS, &self.ours)] {
            let done = self.world.acknowledged(node, kind).await;
            done.with_context(|| format!("{node} said:\n{}", process.tail()))?;
        }
        Ok(())
    }

    /// Puts one configuration of routes into force in each listener, in both proxies.
    ///
    /// # Errors
    /// When one is refused, or does not take effect.
    pub async fn configure(&mut self, routes: &[RouteConfiguration], generation: &str) -> Result<()> {
        let resources: Vec<Any> = routes.iter().map(any).collect();
        for node in [ENVOY, OURS] {
            self.world.set(node, resources.clone());
        }
        self.acknowledged(type_url::ROUTE).await?;
        for index in 0..self.listeners {
            for (address, process) in [(envoy_address(index), &self.envoy), (our_address(index), &self.ours)]
            {
                in_force(address, generation).await.with_context(|| process.tail())?;
            }
        }
        Ok(())
    }
}

/// Waits until a listener answers with this generation.
async fn in_force(address: SocketAddr, generation: &str) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut client = Client::new(address);
    let call = Call::get(GENERATION_HOST, "/");
    loop {
        let answer = client.send(&call).await;
        if answer.as_ref().is_ok_and(|answer| answer.body == generation) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{address} does not have {generation} in force: {answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Name, policy and endpoints of the clusters that somebody serves.
fn clusters() -> Vec<(&'static str, LbPolicy, Vec<SocketAddr>)> {
    let at = |last: u8| SocketAddr::from(([127, 77, 1, last], BACKEND_PORT));
    vec![
        ("one", LbPolicy::RoundRobin, vec![at(1)]),
        ("two", LbPolicy::LeastRequest, vec![at(2)]),
        ("ring", LbPolicy::RingHash, (11..15).map(at).collect()),
        ("maglev", LbPolicy::Maglev, (21..25).map(at).collect()),
    ]
}

fn thresholds() -> Thresholds {
    let max = Some(UInt32Value { value: 10_000 });
    Thresholds {
        max_connections: max,
        max_pending_requests: max,
        max_requests: max,
        max_retries: max,
        ..Default::default()
    }
}

fn cluster_resources() -> Vec<Any> {
    let mut all = Vec::new();
    let nobody = [
        ("dead", LbPolicy::RoundRobin, vec![SocketAddr::from(([127, 77, 1, 99], BACKEND_PORT))]),
        ("empty", LbPolicy::RoundRobin, Vec::new()),
    ];
    for (name, policy, endpoints) in clusters().into_iter().chain(nobody) {
        let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
        all.push(any(&Cluster {
            name: name.into(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(core::ConfigSource {
                    config_source_specifier: Some(ads),
                    resource_api_version: core::ApiVersion::V3.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            lb_policy: policy.into(),
            // Whether a retry is made must not depend on what else is going on.
            circuit_breakers: Some(CircuitBreakers { thresholds: vec![thresholds()], ..Default::default() }),
            typed_extension_protocol_options: if name == "two" {
                resources::http2()
            } else {
                Default::default()
            },
            ..Default::default()
        }));
        all.push(any(&resources::load_assignment(name, &endpoints)));
    }
    all
}
