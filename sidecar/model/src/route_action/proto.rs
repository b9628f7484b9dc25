//! `envoy.config.route.v3.RouteAction`.

#![expect(deprecated, reason = "control planes still send the older fields")]

mod pieces;

pub(crate) use pieces::mirrors;

use super::{
    ClusterChoice, GrpcTimeout, HostRewrite, IdleTimeout, PathRewrite, RouteAction, WeightedCluster,
    WeightedClusters,
};
use crate::convert::{
    At, Converted, each, enumeration, flag, header_name, header_text, not_empty, number, optional_duration,
    refuse, required, timeout,
};
use crate::header_ops::proto::header_ops;
use crate::http_filter::proto::route_filters;
use crate::invalid::Invalid;
use crate::matcher::proto::regex_rewrite;
use crate::metadata::proto::metadata;
use crate::retry::proto::retry_policy;
use policies_xds::core::RoutingPriority;
use policies_xds::protobuf;
use policies_xds::route::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, InternalRedirectAction,
};
use policies_xds::route::weighted_cluster::{ClusterWeight, RandomValueSpecifier, cluster_weight};
use policies_xds::route::{self as pb};
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) fn route_action(message: &pb::RouteAction) -> Converted<RouteAction> {
    refuse_what_is_missing(message)?;
    let (grpc_timeout, max_stream_duration) = stream_limits(message)?;
    Ok(RouteAction {
        cluster: cluster_choice(required("cluster_specifier", &message.cluster_specifier)?)?,
        cluster_not_found: match enumeration(
            "cluster_not_found_response_code",
            message.cluster_not_found_response_code,
        )? {
            ClusterNotFoundResponseCode::ServiceUnavailable => http::StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => http::StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => http::StatusCode::INTERNAL_SERVER_ERROR,
        },
        metadata_match: metadata(&message.metadata_match),
        timeout: timeout("timeout", &message.timeout, Some(TIMEOUT))?,
        idle_timeout: match optional_duration("idle_timeout", &message.idle_timeout)? {
            None => IdleTimeout::Inherit,
            Some(Duration::ZERO) => IdleTimeout::Off,
            Some(timeout) => IdleTimeout::After(timeout),
        },
        grpc_timeout,
        max_stream_duration,
        retry: message.retry_policy.as_ref().map(retry_policy).transpose().at("retry_policy")?.map(Arc::new),
        hash_policy: each("hash_policy", &message.hash_policy, pieces::hash_policy)?,
        path_rewrite: path_rewrite(message)?,
        host_rewrite: host_rewrite(message)?,
        append_x_forwarded_host: message.append_x_forwarded_host,
        mirrors: mirrors("request_mirror_policies", &message.request_mirror_policies)?,
        upgrades: each("upgrade_configs", &message.upgrade_configs, pieces::upgrade)?,
        high_priority: enumeration::<RoutingPriority>("priority", message.priority)? == RoutingPriority::High,
    })
}

fn refuse_what_is_missing(message: &pb::RouteAction) -> Converted<()> {
    refuse("path_rewrite_policy", message.path_rewrite_policy.is_some())?;
    refuse("cors", message.cors.is_some())?;
    refuse("retry_policy_typed_config", message.retry_policy_typed_config.is_some())?;
    refuse("hedge_policy", message.hedge_policy.is_some())?;
    refuse("internal_redirect_policy", message.internal_redirect_policy.is_some())?;
    let follows =
        message.internal_redirect_action == i32::from(InternalRedirectAction::HandleInternalRedirect);
    refuse("internal_redirect_action", follows)
}

/// Limits of the stream, and what `grpc-timeout` means: a bound of zero leaves it unbounded.
fn stream_limits(message: &pb::RouteAction) -> Converted<(GrpcTimeout, Option<Duration>)> {
    let bound = |field: &str, value: &Option<protobuf::Duration>| -> Converted<Option<GrpcTimeout>> {
        Ok(optional_duration(field, value)?.map(|bound| match bound {
            Duration::ZERO => GrpcTimeout::Unbounded,
            bound => GrpcTimeout::UpTo(bound),
        }))
    };
    let older = bound("max_grpc_timeout", &message.max_grpc_timeout)?;
    let Some(limits) = &message.max_stream_duration else { return Ok((older.unwrap_or_default(), None)) };
    let newer =
        bound("grpc_timeout_header_max", &limits.grpc_timeout_header_max).at("max_stream_duration")?;
    let most = timeout("max_stream_duration", &limits.max_stream_duration, None).at("max_stream_duration")?;
    Ok((newer.or(older).unwrap_or_default(), most))
}

fn cluster_choice(message: &ClusterSpecifier) -> Converted<ClusterChoice> {
    match message {
        ClusterSpecifier::Cluster(name) => Ok(ClusterChoice::Single(not_empty("cluster", name)?.into())),
        ClusterSpecifier::ClusterHeader(name) => {
            header_name("cluster_header", name).map(ClusterChoice::Header)
        }
        ClusterSpecifier::WeightedClusters(message) => {
            weighted_clusters(message).at("weighted_clusters").map(ClusterChoice::Weighted)
        }
        ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            Err(Invalid::unsupported("cluster_specifier_plugin", "this field"))
        }
    }
}

fn weighted_clusters(message: &pb::WeightedCluster) -> Converted<WeightedClusters> {
    let clusters = each("clusters", &message.clusters, weighted_cluster)?;
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if !(1..=u64::from(u32::MAX)).contains(&total) {
        return Err(Invalid::new("clusters", "must have weights whose sum is from 1 to 2^32 - 1"));
    }
    let (random_header, by_hash) = match &message.random_value_specifier {
        None => (None, false),
        Some(RandomValueSpecifier::HeaderName(name)) => (Some(header_name("header_name", name)?), false),
        Some(RandomValueSpecifier::UseHashPolicy(wanted)) => (None, flag(&Some(*wanted), false)),
    };
    Ok(WeightedClusters { clusters, total, random_header, by_hash })
}

fn weighted_cluster(message: &ClusterWeight) -> Converted<WeightedCluster> {
    refuse("cluster_header", !message.cluster_header.is_empty())?;
    required("weight", &message.weight)?;
    Ok(WeightedCluster {
        name: not_empty("name", &message.name)?.into(),
        weight: number(&message.weight).unwrap_or(0),
        request_headers: header_ops(
            "request",
            &message.request_headers_to_add,
            &message.request_headers_to_remove,
        )?,
        response_headers: header_ops(
            "response",
            &message.response_headers_to_add,
            &message.response_headers_to_remove,
        )?,
        host_rewrite: match &message.host_rewrite_specifier {
            Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                Some(header_text("host_rewrite_literal", not_empty("host_rewrite_literal", host)?)?.into())
            }
            None => None,
        },
        metadata_match: metadata(&message.metadata_match),
        filters: route_filters(&message.typed_per_filter_config)?,
    })
}

fn path_rewrite(message: &pb::RouteAction) -> Converted<Option<PathRewrite>> {
    let written = [
        !message.prefix_rewrite.is_empty(),
        message.regex_rewrite.is_some(),
        !message.path_rewrite.is_empty(),
    ];
    if written.into_iter().filter(|is_set| *is_set).count() > 1 {
        return Err(Invalid::new("prefix_rewrite", "must not be set beside another rewrite of the path"));
    }
    if let Some(message) = &message.regex_rewrite {
        return Ok(Some(PathRewrite::Regex(regex_rewrite(message).at("regex_rewrite")?)));
    }
    if !message.path_rewrite.is_empty() {
        let path = header_text("path_rewrite", &message.path_rewrite)?;
        refuse("path_rewrite", path.contains('%'))?;
        return Ok(Some(PathRewrite::Full(path.into())));
    }
    Ok(match header_text("prefix_rewrite", &message.prefix_rewrite)? {
        "" => None,
        prefix => Some(PathRewrite::Prefix(prefix.into())),
    })
}

fn host_rewrite(message: &pb::RouteAction) -> Converted<Option<HostRewrite>> {
    Ok(match &message.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            match header_text("host_rewrite_literal", host)? {
                "" => None,
                host => Some(HostRewrite::Literal(host.into())),
            }
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => {
            flag(&Some(*auto), false).then_some(HostRewrite::Auto)
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(header_name("host_rewrite_header", name)?))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(message)) => {
            Some(HostRewrite::PathRegex(regex_rewrite(message).at("host_rewrite_path_regex")?))
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            return Err(Invalid::unsupported("host_rewrite", "a formatted host"));
        }
    })
}
