//! The ports that the process itself serves, beside those of its configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use base_runtime::TaskGroup;
use base_runtime::http_server::{self, Handler, Listener, handler};
use tokio::net::TcpListener;

use crate::admin::Admin;
use crate::config::Config;
use crate::handover::Inherited;
use crate::health::Health;
use crate::life::Life;

/// The ports, open: admin, readiness, metrics, status.
pub(crate) struct Own([TcpListener; 4]);

fn addresses(config: &Config) -> [SocketAddr; 4] {
    let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    [
        (Ipv4Addr::LOCALHOST, config.admin_port).into(),
        (all, config.health_port).into(),
        (all, config.metrics_port).into(),
        (all, config.status_port).into(),
    ]
}

/// Opens all of them, or takes them over from the process before.
pub(crate) fn open(config: &Config, inherited: &mut Inherited) -> anyhow::Result<Own> {
    let mut open = |address: SocketAddr| -> anyhow::Result<TcpListener> {
        let socket = match inherited.take(address).pop() {
            Some(socket) => std::net::TcpListener::from(socket),
            None => {
                std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?
            }
        };
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from_std(socket)?)
    };
    let [admin, readiness, metrics, status] = addresses(config);
    Ok(Own([open(admin)?, open(readiness)?, open(metrics)?, open(status)?]))
}

/// Serves on all of them until the tasks end.
pub(crate) fn serve(
    own: Own,
    config: &Config,
    log: base_runtime::log::Filter,
    life: &Arc<Life>,
    tasks: &TaskGroup,
) {
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
    let ports: [(&'static str, Handler); 4] = [
        (
            "admin",
            handler(move |request| {
                let admin = Arc::clone(&admin);
                async move { admin.answer(&request).await }
            }),
        ),
        (
            "readiness",
            handler(move |request| {
                let answer = readiness.readiness(&request);
                async move { answer }
            }),
        ),
        (
            "metrics",
            handler(move |request| {
                let answer = metrics.metrics(&request);
                async move { answer }
            }),
        ),
        (
            "status",
            handler(move |request| {
                let health = Arc::clone(&status);
                async move { health.status(request).await }
            }),
        ),
    ];
    for ((name, handler), listener) in ports.into_iter().zip(own.0) {
        let token = tasks.token().clone();
        tasks.spawn_draining(name, http_server::serve(Listener::Tcp(listener), handler, token));
    }
}
