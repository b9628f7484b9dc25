//! The control plane's binary: wiring only.
//!
//! Kubernetes watches feed the index, the index publishes snapshots, streams compile and push them, acknowledgements become status.

mod authority;
mod config;
mod departures;
mod figures;
mod monitoring;
mod programmed;
mod secure;
mod tokens;
mod webhooks;

use anyhow::Context;
use base_runtime::{TaskGroup, shutdown_on_signals};
use base_types::ErrorChain;
use clap::Parser;
use config::{Args, Command, Config};
use figures::Figures;
use meshd_ca::Ca;
use meshd_xds::{Metrics, Publisher, Server, Tracker};
use policies_api::names::ports;
use policies_xds::{csr::CertificateServiceServer, discovery::AggregatedDiscoveryServiceServer};
use prometheus_client::registry::Registry;
use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// Streams are closed within this time at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Args { command: Command::Serve(config) } = Args::parse();
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshd: {}", ErrorChain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    base_tls::install_default_provider();
    base_runtime::log::init(&config.log_level, base_runtime::log::Format::Text)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.threads).enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let shutdown = shutdown_on_signals()?;
    let tasks = TaskGroup::new(shutdown.clone());
    let client = kube::Client::try_default()
        .await
        .context("no way to the Kubernetes API: neither a service account's files nor a kubeconfig")?;
    let authority = Arc::new(authority::load_or_create(&client, &config).await?);
    let identity = authority::serving_identity(authority.clone(), &config, &tasks)?;
    tasks.spawn(
        "root certificates",
        authority::distribute(client.clone(), authority.certificate_pem().to_owned()),
    );

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (publisher, tracker) = (Publisher::default(), Tracker::default());
    let figures = Figures::register(&mut registry, publisher.clone(), tracker.clone());
    let authenticate = Arc::new(tokens::Reviewer::new(client.clone()));
    let ads = Server::new(publisher.clone(), tracker.clone(), authenticate.clone(), metrics);
    let ca = Ca::new(authority.clone(), authenticate, &config.trust_domain, config.certificate_ttl);

    let discovery = listen(ports::DISCOVERY).await?;
    let webhook = listen(ports::WEBHOOK).await?;
    let monitoring = listen(ports::CONTROL_PLANE_METRICS).await?;
    tasks.spawn("index", index(client.clone(), publisher.clone(), figures.clone(), shutdown.clone()));
    tasks.spawn("departures", departures::run(client.clone(), publisher.clone(), tracker.clone()));
    tasks.spawn("programmed", programmed::run(client.clone(), publisher.clone(), tracker.clone()));
    let webhooks = webhooks::serve(webhook, identity.clone(), config.injection(), figures, shutdown.clone());
    tasks.spawn("webhooks", webhooks);
    tasks.spawn("webhook configurations", webhooks::register(client, authority.certificate_pem().to_owned()));
    tasks.spawn("monitoring", monitoring::serve(monitoring, registry, publisher, tracker, shutdown.clone()));

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        trust_domain = config.trust_domain,
        "Control plane serving"
    );
    // Proxies hold long streams: pings find those that are gone.
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(AggregatedDiscoveryServiceServer::new(ads))
        .add_service(CertificateServiceServer::new(ca))
        .serve_with_incoming_shutdown(secure::incoming(discovery, &identity), async {
            shutdown.cancelled().await;
            // Streams do not end by themselves: give the server a moment to say goodbye, then leave.
            tokio::spawn(async {
                tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
                std::process::exit(0);
            });
        })
        .await?;
    tasks.shutdown(SHUTDOWN_TIMEOUT).await;
    Ok(())
}

async fn index(
    client: kube::Client,
    publisher: Publisher,
    figures: Figures,
    shutdown: base_runtime::CancellationToken,
) {
    let publish = move |snapshot, change| {
        figures.published(&change);
        publisher.publish(meshd_xds::Publication { snapshot, change: Arc::new(change) })
    };
    if let Err(error) = meshd_index::run(client, publish, shutdown).await {
        tracing::error!(error = %ErrorChain(&error), "The index ended; the control plane restarts");
        std::process::exit(1);
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
