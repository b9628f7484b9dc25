//! Injected delays and aborts.

use policies_api::matching::Percent;
use policies_api::virtual_service::{Abort, Delay, Fault};
use policies_xds::fault::{FaultAbort, HttpFault, fault_abort::ErrorType};
use policies_xds::fault_common::{FaultDelay, fault_delay::FaultDelaySecifier};
use policies_xds::hcm::HttpFilter;
use policies_xds::{any, protobuf::Any};

use crate::proto::{duration, fraction};

/// Name of the filter.
pub(crate) const FILTER: &str = "envoy.filters.http.fault";

pub(crate) fn filter() -> HttpFilter {
    super::http(FILTER, any(&HttpFault::default()))
}

/// The fault of a rule; none when it says nothing that can be done.
pub(crate) fn per_route(written: &Fault) -> Option<Any> {
    let delay = written.delay.as_ref().and_then(delay);
    let abort = written.abort.as_ref().and_then(abort);
    (delay.is_some() || abort.is_some()).then(|| any(&HttpFault { delay, abort, ..Default::default() }))
}

fn delay(written: &Delay) -> Option<FaultDelay> {
    let older = written.percent.map(|value| Percent { value: f64::from(value) });
    let share = written.percentage.or(older).unwrap_or(Percent { value: 100.0 });
    Some(FaultDelay {
        percentage: Some(fraction(share)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(written.fixed_delay?.0))),
    })
}

fn abort(written: &Abort) -> Option<FaultAbort> {
    let error = match (written.http_status, &written.grpc_status) {
        (Some(status), _) => {
            ErrorType::HttpStatus(u32::try_from(status).ok().filter(|it| (200..600).contains(it))?)
        }
        (None, Some(name)) => ErrorType::GrpcStatus(policies_api::validate::grpc_status(name)?),
        (None, None) => return None,
    };
    let share = written.percentage.unwrap_or(Percent { value: 100.0 });
    Some(FaultAbort { percentage: Some(fraction(share)), error_type: Some(error), ..Default::default() })
}
