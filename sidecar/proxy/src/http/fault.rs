//! Injected faults: the delay first, then the abort.

use std::cell::Cell;

use sidecar_model::Fault;
use sidecar_model::fault::{AbortStatus, FaultDelay};
use sidecar_route::{RequestView, headers_match};
use sidecar_telemetry::Flag;

use super::failure::Failure;
use super::record::Record;
use crate::worker::Worker;

/// One fault that is active.
struct Active<'a>(&'a Cell<u32>);

impl<'a> Active<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whether the fault's conditions hold for the request; chance is not asked yet.
pub(super) fn applies(fault: &Fault, view: &RequestView<'_>, cluster: Option<&str>, worker: &Worker) -> bool {
    headers_match(&fault.headers, view)
        && (fault.upstream_cluster.is_empty() || cluster == Some(&*fault.upstream_cluster))
        && fault.downstream_nodes.is_empty()
        && fault.max_active.is_none_or(|max| worker.faults.get() < max)
}

/// Injects the faults that chance chooses.
pub(super) async fn inject(fault: &Fault, worker: &Worker, record: &mut Record) -> Result<(), Failure> {
    if let Some(FaultDelay::Fixed { delay, chance }) = &fault.delay
        && chance.hit(worker.random())
    {
        let _active = Active::new(&worker.faults);
        record.flags.insert(Flag::DelayInjected);
        tokio::time::sleep(*delay).await;
    }
    let Some(abort) = fault.abort.as_ref().filter(|abort| abort.chance.hit(worker.random())) else {
        return Ok(());
    };
    match abort.status {
        AbortStatus::Http(status) => Err(Failure::FaultHttp(status)),
        AbortStatus::Grpc(code) => Err(Failure::FaultGrpc(u16::try_from(code).unwrap_or(2))),
        // Statuses that requests ask for themselves are not offered by the mesh's API.
        AbortStatus::Header => Ok(()),
    }
}
