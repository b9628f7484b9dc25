//! HTTP/1 and HTTP/2 options, shared by connection managers and clusters.

use crate::convert::{At, Converted, bounded, flag, number, timeout};
use crate::hcm::{Http1Options, Http2Options};
use policies_xds::core::http1_protocol_options::header_key_format::HeaderFormat;
use policies_xds::core::{Http1ProtocolOptions, Http2ProtocolOptions};

/// RFC 9113's initial window, Envoy's lowest.
const WINDOW_BYTES_MIN: u32 = 65_535;
/// RFC 9113's greatest window and, in Envoy, number of streams.
const INT31_MAX: u32 = 0x7fff_ffff;

pub(crate) fn http2_options(message: Option<&Http2ProtocolOptions>) -> Converted<Http2Options> {
    let Some(message) = message else { return Ok(Http2Options::default()) };
    let bounded = |field, value: Option<u32>, min| {
        value.map(|value| bounded(field, value, min..=INT31_MAX)).transpose()
    };
    let keepalive = message.connection_keepalive.unwrap_or_default();
    Ok(Http2Options {
        max_concurrent_streams: bounded(
            "max_concurrent_streams",
            number(&message.max_concurrent_streams),
            1,
        )?,
        initial_stream_window_bytes: bounded(
            "initial_stream_window_size",
            number(&message.initial_stream_window_size),
            WINDOW_BYTES_MIN,
        )?,
        initial_connection_window_bytes: bounded(
            "initial_connection_window_size",
            number(&message.initial_connection_window_size),
            WINDOW_BYTES_MIN,
        )?,
        keepalive_interval: timeout("interval", &keepalive.interval, None).at("connection_keepalive")?,
        keepalive_timeout: timeout("timeout", &keepalive.timeout, None).at("connection_keepalive")?,
        allow_connect: message.allow_connect,
    })
}

pub(crate) fn http1_options(message: Option<&Http1ProtocolOptions>) -> Http1Options {
    let Some(message) = message else { return Http1Options::default() };
    let format = message.header_key_format.as_ref().and_then(|format| format.header_format.as_ref());
    Http1Options {
        accept_http_10: message.accept_http_10,
        deny_absolute_url: !flag(&message.allow_absolute_url, true),
        // Proper case is a guess at the original case, which is kept here.
        preserve_header_case: matches!(
            format,
            Some(HeaderFormat::StatefulFormatter(_) | HeaderFormat::ProperCaseWords(_))
        ),
    }
}
