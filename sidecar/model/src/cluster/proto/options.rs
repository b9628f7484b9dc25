//! HTTP and TCP options of a cluster, from `typed_extension_protocol_options` and the older fields.

#![expect(deprecated, reason = "control planes still send the older fields")]

use crate::cluster::{UpstreamHttp, UpstreamProtocol};
use crate::convert::{At, Converted, number, refuse, timeout, unpack};
use crate::hcm::proto::{http1_options, http2_options};
use crate::invalid::Invalid;
use policies_xds::cluster::{Cluster, cluster::ClusterProtocolSelection};
use policies_xds::core::{self, Http1ProtocolOptions, Http2ProtocolOptions, UpstreamHttpProtocolOptions};
use policies_xds::http_protocol_options::HttpProtocolOptions;
use policies_xds::http_protocol_options::http_protocol_options::UpstreamProtocolOptions;
use policies_xds::http_protocol_options::http_protocol_options::explicit_http_config::ProtocolConfig;
use policies_xds::tcp_protocol_options::TcpProtocolOptions;
use policies_xds::type_url::{HTTP_PROTOCOL_OPTIONS_KEY, TCP_PROTOCOL_OPTIONS_KEY};
use std::time::Duration;

/// Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) http: UpstreamHttp,
    pub(super) tcp_idle_timeout: Option<Duration>,
    pub(super) auto_sni: bool,
    pub(super) auto_san_validation: bool,
}

pub(super) fn options(message: &Cluster) -> Converted<Options> {
    let mut options = Options { http: from_older_fields(message)?, ..Options::default() };
    set_names(&mut options, message.upstream_http_protocol_options.as_ref())?;
    for (key, any) in &message.typed_extension_protocol_options {
        let field = format!("typed_extension_protocol_options[`{key}`]");
        match key.as_str() {
            HTTP_PROTOCOL_OPTIONS_KEY => {
                http(&mut options, &unpack("", any).at(&field)?).at(&field)?;
            }
            TCP_PROTOCOL_OPTIONS_KEY => {
                let tcp: TcpProtocolOptions = unpack(&field, any)?;
                options.tcp_idle_timeout = timeout("idle_timeout", &tcp.idle_timeout, None).at(&field)?;
            }
            _ => return Err(Invalid::unsupported(field, "this extension")),
        }
    }
    Ok(options)
}

fn from_older_fields(message: &Cluster) -> Converted<UpstreamHttp> {
    let mut http = UpstreamHttp {
        http1: http1_options(message.http_protocol_options.as_ref()),
        http2: http2_options(message.http2_protocol_options.as_ref()).at("http2_protocol_options")?,
        ..UpstreamHttp::default()
    };
    if message.protocol_selection == i32::from(ClusterProtocolSelection::UseDownstreamProtocol) {
        http.protocol = UpstreamProtocol::UseDownstream;
    } else if message.http2_protocol_options.is_some() {
        http.protocol = UpstreamProtocol::Http2;
    }
    common(&mut http, message.common_http_protocol_options.as_ref())?;
    if let Some(max) = number(&message.max_requests_per_connection).filter(|max| *max > 0) {
        http.max_requests_per_connection = Some(max);
    }
    Ok(http)
}

fn common(http: &mut UpstreamHttp, message: Option<&core::HttpProtocolOptions>) -> Converted<()> {
    let default = core::HttpProtocolOptions::default();
    let message = message.unwrap_or(&default);
    const FIELD: &str = "common_http_protocol_options";
    refuse("max_stream_duration", message.max_stream_duration.is_some()).at(FIELD)?;
    http.idle_timeout = timeout("idle_timeout", &message.idle_timeout, Some(IDLE_TIMEOUT)).at(FIELD)?;
    http.max_connection_duration =
        timeout("max_connection_duration", &message.max_connection_duration, None).at(FIELD)?;
    http.max_requests_per_connection = number(&message.max_requests_per_connection).filter(|max| *max > 0);
    Ok(())
}

fn http(options: &mut Options, message: &HttpProtocolOptions) -> Converted<()> {
    refuse("outlier_detection", message.outlier_detection.is_some())?;
    refuse("request_mirror_policies", !message.request_mirror_policies.is_empty())?;
    refuse("hash_policy", !message.hash_policy.is_empty())?;
    refuse("retry_policy", message.retry_policy.is_some())?;
    // The codec itself, which Envoy wants to see listed, is the only filter there.
    let filters = message.http_filters.iter().filter(|it| it.name != "envoy.filters.http.upstream_codec");
    refuse("http_filters", filters.filter(|it| !it.is_optional).count() > 0)?;
    set_names(options, message.upstream_http_protocol_options.as_ref())?;
    common(&mut options.http, message.common_http_protocol_options.as_ref())?;
    let (protocol, http1, http2) = protocol(message)?;
    options.http.protocol = protocol;
    options.http.http1 = http1_options(http1);
    options.http.http2 = http2_options(http2).at("http2_protocol_options")?;
    Ok(())
}

type Protocol<'a> = (UpstreamProtocol, Option<&'a Http1ProtocolOptions>, Option<&'a Http2ProtocolOptions>);

fn protocol(message: &HttpProtocolOptions) -> Converted<Protocol<'_>> {
    Ok(match &message.upstream_protocol_options {
        None => (UpstreamProtocol::Http1, None, None),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match &config.protocol_config {
            None => return Err(Invalid::missing("explicit_http_config.protocol_config")),
            Some(ProtocolConfig::HttpProtocolOptions(http1)) => (UpstreamProtocol::Http1, Some(http1), None),
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => (UpstreamProtocol::Http2, None, Some(http2)),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(Invalid::unsupported("explicit_http_config.http3_protocol_options", "HTTP/3"));
            }
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => (
            UpstreamProtocol::UseDownstream,
            config.http_protocol_options.as_ref(),
            config.http2_protocol_options.as_ref(),
        ),
        Some(UpstreamProtocolOptions::AutoConfig(config)) => {
            refuse("auto_config.http3_protocol_options", config.http3_protocol_options.is_some())?;
            let (http1, http2) =
                (config.http_protocol_options.as_ref(), config.http2_protocol_options.as_ref());
            (UpstreamProtocol::Auto, http1, http2)
        }
    })
}

fn set_names(options: &mut Options, message: Option<&UpstreamHttpProtocolOptions>) -> Converted<()> {
    let Some(message) = message else { return Ok(()) };
    refuse(
        "upstream_http_protocol_options.override_auto_sni_header",
        !message.override_auto_sni_header.is_empty(),
    )?;
    options.auto_sni |= message.auto_sni;
    options.auto_san_validation |= message.auto_san_validation;
    Ok(())
}
