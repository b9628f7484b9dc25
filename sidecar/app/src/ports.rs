//! The ports that the process itself serves, beside those of its configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use base_runtime::TaskGroup;
use base_runtime::http_server::{self, Handler, Listener, handler};
use tokio::net::TcpListener;

use crate::admin::Admin;
use crate::config::Config;
use crate::health::Health;
use crate::life::Life;

/// Opens all of them and serves until the tasks end.
pub(crate) async fn serve(
    config: &Config,
    log: base_runtime::log::Filter,
    life: &Arc<Life>,
    tasks: &TaskGroup,
) -> anyhow::Result<()> {
    let admin = Arc::new(Admin {
        life: Arc::clone(life),
        node: config.discovery().node,
        log,
        port: config.admin_port,
    });
    let health = Arc::new(Health {
        life: Arc::clone(life),
        probers: config.probers.clone(),
        scrape: config.scrape.clone(),
        pod: config.pod.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    });
    let (readiness, metrics, status) = (Arc::clone(&health), Arc::clone(&health), health);
    let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ports: [(&'static str, SocketAddr, Handler); 4] = [
        (
            "admin",
            (Ipv4Addr::LOCALHOST, config.admin_port).into(),
            handler(move |request| {
                let answer = admin.answer(&request);
                async move { answer }
            }),
        ),
        (
            "readiness",
            (all, config.health_port).into(),
            handler(move |request| {
                let answer = readiness.readiness(&request);
                async move { answer }
            }),
        ),
        (
            "metrics",
            (all, config.metrics_port).into(),
            handler(move |request| {
                let answer = metrics.metrics(&request);
                async move { answer }
            }),
        ),
        (
            "status",
            (all, config.status_port).into(),
            handler(move |request| {
                let health = Arc::clone(&status);
                async move { health.status(request).await }
            }),
        ),
    ];
    for (name, address, handler) in ports {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for {name}"))?;
        let token = tasks.token().clone();
        tasks.spawn_draining(name, http_server::serve(Listener::Tcp(listener), handler, token));
    }
    Ok(())
}
