//! `envoy.extensions.filters.http.fault.v3.HTTPFault`.

use super::{AbortStatus, Fault, FaultAbort, FaultDelay};
use crate::convert::{At, Converted, boxed, duration, each, number, refuse, required, status};
use crate::matcher::Fraction;
use crate::matcher::proto::{fraction, header_match};
use policies_xds::fault::fault_abort::ErrorType;
use policies_xds::fault::{self, HttpFault};
use policies_xds::fault_common::{self, fault_delay::FaultDelaySecifier};
use policies_xds::types::FractionalPercent;

pub(crate) fn fault(message: &HttpFault) -> Converted<Fault> {
    refuse("response_rate_limit", message.response_rate_limit.is_some())?;
    Ok(Fault {
        delay: message.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: message.abort.as_ref().map(abort).transpose().at("abort")?,
        headers: each("headers", &message.headers, header_match)?,
        upstream_cluster: message.upstream_cluster.as_str().into(),
        downstream_nodes: boxed(&message.downstream_nodes),
        max_active: number(&message.max_active_faults),
    })
}

/// Envoy's default is never.
fn chance(message: &Option<FractionalPercent>) -> Converted<Fraction> {
    message.as_ref().map_or(Ok(Fraction::ZERO), fraction).at("percentage")
}

fn delay(message: &fault_common::FaultDelay) -> Converted<FaultDelay> {
    let chance = chance(&message.percentage)?;
    Ok(match required("fixed_delay", &message.fault_delay_secifier)? {
        FaultDelaySecifier::FixedDelay(delay) => {
            FaultDelay::Fixed { delay: duration("fixed_delay", delay)?, chance }
        }
        FaultDelaySecifier::HeaderDelay(_) => FaultDelay::Header { chance },
    })
}

fn abort(message: &fault::FaultAbort) -> Converted<FaultAbort> {
    refuse("response_body", !message.response_body.is_empty())?;
    let status = match required("http_status", &message.error_type)? {
        ErrorType::HttpStatus(code) => AbortStatus::Http(status("http_status", *code)?),
        ErrorType::GrpcStatus(code) => AbortStatus::Grpc(*code),
        ErrorType::HeaderAbort(_) => AbortStatus::Header,
    };
    Ok(FaultAbort { status, chance: chance(&message.percentage)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::protobuf;
    use std::time::Duration;

    #[test]
    fn delays_and_aborts() {
        let half = Some(FractionalPercent { numerator: 50, denominator: 0 });
        let mut message = HttpFault {
            delay: Some(fault_common::FaultDelay {
                percentage: half,
                fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(protobuf::Duration {
                    seconds: 7,
                    nanos: 0,
                })),
            }),
            abort: Some(fault::FaultAbort {
                error_type: Some(ErrorType::HttpStatus(503)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let converted = fault(&message).unwrap();
        let chance = Fraction { per_million: 500_000 };
        assert_eq!(converted.delay, Some(FaultDelay::Fixed { delay: Duration::from_secs(7), chance }));
        assert_eq!(converted.abort.unwrap().chance, Fraction::ZERO, "no percentage means never");
        message.abort.as_mut().unwrap().error_type = Some(ErrorType::HttpStatus(100));
        assert_eq!(fault(&message).unwrap_err().field, "abort.http_status");
    }
}
