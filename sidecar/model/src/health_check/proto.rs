//! `envoy.config.core.v3.HealthCheck`.

use super::{HealthCheck, HttpProbe, Probe};
use crate::convert::{
    At, Converted, bounded, duration_or, each, enumeration, header_name, header_text, not_empty, number,
    port, positive_duration, refuse, required,
};
use crate::invalid::Invalid;
use policies_xds::core::health_check::{self as pb, HealthChecker, payload};
use policies_xds::core::{self, HeaderValueOption, RequestMethod};
use policies_xds::types::{CodecClientType, Int64Range};
use std::time::Duration;

/// Envoy's default.
const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);

pub(crate) fn health_check(message: &core::HealthCheck) -> Converted<HealthCheck> {
    refuse("event_service", message.event_service.is_some())?;
    refuse("event_logger", !message.event_logger.is_empty())?;
    refuse("tls_options", message.tls_options.is_some())?;
    refuse("transport_socket_match_criteria", message.transport_socket_match_criteria.is_some())?;
    required("timeout", &message.timeout)?;
    required("interval", &message.interval)?;
    required("unhealthy_threshold", &message.unhealthy_threshold)?;
    required("healthy_threshold", &message.healthy_threshold)?;
    let interval = positive_duration("interval", &message.interval, Duration::ZERO)?;
    let or = |field: &str, value, default| positive_duration(field, value, default);
    let unhealthy_interval = or("unhealthy_interval", &message.unhealthy_interval, interval)?;
    let no_traffic_interval = or("no_traffic_interval", &message.no_traffic_interval, NO_TRAFFIC_INTERVAL)?;
    Ok(HealthCheck {
        probe: probe(required("health_checker", &message.health_checker)?)?,
        timeout: positive_duration("timeout", &message.timeout, Duration::ZERO)?,
        interval,
        initial_jitter: duration_or("initial_jitter", &message.initial_jitter, Duration::ZERO)?,
        interval_jitter: duration_or("interval_jitter", &message.interval_jitter, Duration::ZERO)?,
        interval_jitter_percent: message.interval_jitter_percent.min(100),
        unhealthy_threshold: number(&message.unhealthy_threshold).unwrap_or(1),
        healthy_threshold: number(&message.healthy_threshold).unwrap_or(1),
        alt_port: number(&message.alt_port).map(|value| port("alt_port", value)).transpose()?,
        no_traffic_interval,
        no_traffic_healthy_interval: or(
            "no_traffic_healthy_interval",
            &message.no_traffic_healthy_interval,
            no_traffic_interval,
        )?,
        unhealthy_interval,
        unhealthy_edge_interval: or(
            "unhealthy_edge_interval",
            &message.unhealthy_edge_interval,
            unhealthy_interval,
        )?,
        healthy_edge_interval: or("healthy_edge_interval", &message.healthy_edge_interval, interval)?,
        logs_failures: message.always_log_health_check_failures,
    })
}

fn probe(message: &HealthChecker) -> Converted<Probe> {
    match message {
        HealthChecker::HttpHealthCheck(message) => http(message).at("http_health_check").map(Probe::Http),
        HealthChecker::TcpHealthCheck(message) => tcp(message).at("tcp_health_check"),
        HealthChecker::GrpcHealthCheck(message) => Ok(Probe::Grpc {
            service: message.service_name.as_str().into(),
            authority: header_text("authority", &message.authority).at("grpc_health_check")?.into(),
            headers: headers("initial_metadata", &message.initial_metadata).at("grpc_health_check")?,
        }),
        HealthChecker::CustomHealthCheck(_) => {
            Err(Invalid::unsupported("custom_health_check", "a health check of another kind"))
        }
    }
}

fn http(message: &pb::HttpHealthCheck) -> Converted<HttpProbe> {
    refuse("send", message.send.is_some())?;
    refuse("receive", !message.receive.is_empty())?;
    refuse("request_headers_to_remove", !message.request_headers_to_remove.is_empty())?;
    refuse("service_name_matcher", message.service_name_matcher.is_some())?;
    let method = match enumeration("method", message.method)? {
        RequestMethod::MethodUnspecified | RequestMethod::Get => http::Method::GET,
        RequestMethod::Head => http::Method::HEAD,
        RequestMethod::Post => http::Method::POST,
        RequestMethod::Put => http::Method::PUT,
        RequestMethod::Delete => http::Method::DELETE,
        RequestMethod::Options => http::Method::OPTIONS,
        RequestMethod::Trace => http::Method::TRACE,
        RequestMethod::Patch => http::Method::PATCH,
        RequestMethod::Connect => {
            return Err(Invalid::unsupported("method", "CONNECT"));
        }
    };
    let path = not_empty("path", &message.path)?;
    if !path.starts_with('/') || http::uri::PathAndQuery::try_from(path).is_err() {
        return Err(Invalid::new("path", "must be a path"));
    }
    let mut expected = each("expected_statuses", &message.expected_statuses, statuses)?;
    if expected.is_empty() {
        expected.push((200, 201));
    }
    Ok(HttpProbe {
        host: header_text("host", &message.host)?.into(),
        path: path.into(),
        method,
        headers: headers("request_headers_to_add", &message.request_headers_to_add)?,
        expected,
        retriable: each("retriable_statuses", &message.retriable_statuses, statuses)?,
        http2: match enumeration("codec_client_type", message.codec_client_type)? {
            CodecClientType::Http1 => false,
            CodecClientType::Http2 => true,
            CodecClientType::Http3 => return Err(Invalid::unsupported("codec_client_type", "HTTP/3")),
        },
    })
}

fn statuses(range: &Int64Range) -> Converted<(u16, u16)> {
    let bound = |field: &str, value: i64| {
        bounded(field, u32::try_from(value).unwrap_or(u32::MAX), 100..=600)
            .map(|value| u16::try_from(value).unwrap_or(600))
    };
    let (start, end) = (bound("start", range.start)?, bound("end", range.end)?);
    if start >= end {
        return Err(Invalid::new("end", "must be above `start`"));
    }
    Ok((start, end))
}

fn headers(field: &str, messages: &[HeaderValueOption]) -> Converted<Vec<(Box<str>, Box<str>)>> {
    each(field, messages, |message| {
        let header = required("header", &message.header)?;
        let value = header_text("header.value", &header.value)?;
        refuse("header.value", value.contains('%'))?;
        Ok((header_name("header.key", &header.key)?.as_str().into(), value.into()))
    })
}

fn tcp(message: &pb::TcpHealthCheck) -> Converted<Probe> {
    refuse("proxy_protocol_config", message.proxy_protocol_config.is_some())?;
    Ok(Probe::Tcp {
        send: message.send.as_ref().map(bytes).transpose().at("send")?.unwrap_or_default(),
        receive: each("receive", &message.receive, bytes)?,
    })
}

/// Texts are hexadecimal.
fn bytes(message: &pb::Payload) -> Converted<Vec<u8>> {
    match required("payload", &message.payload)? {
        payload::Payload::Binary(bytes) => Ok(bytes.clone()),
        payload::Payload::Text(text) => hexadecimal(text)
            .ok_or_else(|| Invalid::new("text", "must be an even number of hexadecimal digits")),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(high)? * 16 + digit(low)?).ok();
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty() && !text.is_empty())
}

#[cfg(test)]
mod tests;
