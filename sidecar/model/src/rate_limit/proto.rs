//! `envoy.config.route.v3.RateLimit` and the local and global rate limit filters.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{
    DescriptorEntry, GlobalRateLimit, GlobalRateLimitRoute, HostLimits, Level, LimitAction, LocalDescriptor,
    LocalRateLimit, RateLimit, RequestOrigin, TokenBucket,
};
use crate::convert::{
    At, Converted, bounded, each, enumeration, flag, header_name, not_empty, number, optional_duration,
    refuse, required,
};
use crate::ext_authz::proto::{chance, grpc_service, status_or};
use crate::header_ops::proto::header_add;
use crate::invalid::Invalid;
use crate::matcher::Fraction;
use crate::matcher::proto::{header_match, query_match};
use http::StatusCode;
use policies_xds::local_ratelimit::LocalRateLimit as LocalMessage;
use policies_xds::metadata_key::{MetadataKey, metadata_key::path_segment::Segment};
use policies_xds::ratelimit::{
    RateLimit as GlobalMessage, RateLimitPerRoute, rate_limit, rate_limit_per_route,
};
use policies_xds::ratelimit_common::{LocalRateLimitDescriptor, VhRateLimitsOptions, rate_limit_descriptor};
use policies_xds::route::rate_limit::Action;
use policies_xds::route::rate_limit::action::{ActionSpecifier, MetaData, meta_data::Source};
use policies_xds::{route, types};
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default for calls of the service.
const TIMEOUT: Duration = Duration::from_millis(20);
/// Envoy's bound on how often a bucket fills.
const FILL_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// Envoy's bound on stages.
const STAGE_MAX: u32 = 10;

pub(crate) fn local(message: &LocalMessage) -> Converted<LocalRateLimit> {
    refuse("local_rate_limit_per_downstream_connection", message.local_rate_limit_per_downstream_connection)?;
    refuse("local_cluster_rate_limit", message.local_cluster_rate_limit.is_some())?;
    refuse("enable_retry_after_header", message.enable_retry_after_header)?;
    let mut descriptors = each("descriptors", &message.descriptors, local_descriptor)?;
    // The one that refuses soonest is asked first, as in Envoy.
    descriptors.sort_by(|a, b| rate(&a.bucket).total_cmp(&rate(&b.bucket)));
    let bucket = message.token_bucket.as_ref().map(token_bucket).transpose().at("token_bucket")?;
    if let Some(bucket) = &bucket
        && descriptors
            .iter()
            .any(|it| it.bucket.fill_interval.as_nanos() % bucket.fill_interval.as_nanos() != 0)
    {
        let reason = "must be multiples of the fill interval of `token_bucket`";
        return Err(Invalid::new("descriptors", reason));
    }
    let host_limits = match enumeration("vh_rate_limits", message.vh_rate_limits)? {
        VhRateLimitsOptions::Override => HostLimits::Override,
        VhRateLimitsOptions::Include => HostLimits::Include,
        VhRateLimitsOptions::Ignore => HostLimits::Ignore,
    };
    Ok(LocalRateLimit {
        stat_prefix: not_empty("stat_prefix", &message.stat_prefix)?.into(),
        // Envoy heeds only statuses of failures.
        status: status_or("status", &message.status, StatusCode::TOO_MANY_REQUESTS)
            .map(|status| if status.as_u16() < 400 { StatusCode::TOO_MANY_REQUESTS } else { status })?,
        bucket,
        // For safety, as Envoy says: nothing is limited unless both are set.
        enabled: chance("filter_enabled", &message.filter_enabled, NEVER)?,
        enforced: chance("filter_enforced", &message.filter_enforced, NEVER)?,
        request_headers_when_not_enforced: each(
            "request_headers_to_add_when_not_enforced",
            &message.request_headers_to_add_when_not_enforced,
            header_add,
        )?,
        response_headers: each("response_headers_to_add", &message.response_headers_to_add, header_add)?,
        descriptors,
        stage: bounded("stage", message.stage, 0..=STAGE_MAX)?,
        quota_headers: quota_headers(message.enable_x_ratelimit_headers)?,
        host_limits,
        always_default: flag(&message.always_consume_default_token_bucket, true),
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        limits: rate_limits("rate_limits", &message.rate_limits)?,
    })
}

const NEVER: Fraction = Fraction { per_million: 0 };

fn rate(bucket: &TokenBucket) -> f64 {
    f64::from(bucket.tokens_per_fill) / bucket.fill_interval.as_secs_f64()
}

fn local_descriptor(message: &LocalRateLimitDescriptor) -> Converted<LocalDescriptor> {
    refuse("shadow_mode", message.shadow_mode)?;
    if message.entries.is_empty() {
        return Err(Invalid::missing("entries"));
    }
    let bucket = required("token_bucket", &message.token_bucket)?;
    Ok(LocalDescriptor {
        entries: each("entries", &message.entries, |entry: &rate_limit_descriptor::Entry| {
            if entry.value.is_empty() {
                return Err(Invalid::unsupported("value", "a bucket for each value"));
            }
            Ok(DescriptorEntry {
                key: not_empty("key", &entry.key)?.into(),
                value: entry.value.as_str().into(),
            })
        })?,
        bucket: token_bucket(bucket).at("token_bucket")?,
    })
}

fn token_bucket(message: &types::TokenBucket) -> Converted<TokenBucket> {
    let interval = optional_duration("fill_interval", &message.fill_interval)?
        .ok_or_else(|| Invalid::missing("fill_interval"))?;
    if interval < FILL_INTERVAL_MIN {
        return Err(Invalid::new("fill_interval", "must be at least 50 ms"));
    }
    Ok(TokenBucket {
        max_tokens: bounded("max_tokens", message.max_tokens, 1..=u32::MAX)?,
        tokens_per_fill: bounded(
            "tokens_per_fill",
            number(&message.tokens_per_fill).unwrap_or(1),
            1..=u32::MAX,
        )?,
        fill_interval: interval,
        level: Level::default(),
    })
}

fn quota_headers(value: i32) -> Converted<bool> {
    use rate_limit::XRateLimitHeadersRfcVersion::{DraftVersion03, Off};
    Ok(match enumeration("enable_x_ratelimit_headers", value)? {
        Off => false,
        DraftVersion03 => true,
    })
}

pub(crate) fn global(message: &GlobalMessage) -> Converted<GlobalRateLimit> {
    refuse("enable_retry_after_header", message.enable_retry_after_header)?;
    refuse("failure_mode_deny_percent", message.failure_mode_deny_percent.is_some())?;
    refuse("metadata_namespace", !message.metadata_namespace.is_empty())?;
    let service = required("rate_limit_service", &message.rate_limit_service)?;
    let service = required("rate_limit_service.grpc_service", &service.grpc_service)?;
    let mut service = grpc_service(service, TIMEOUT).at("rate_limit_service.grpc_service")?;
    service.timeout = optional_duration("timeout", &message.timeout)?.unwrap_or(TIMEOUT);
    Ok(GlobalRateLimit {
        domain: not_empty("domain", &message.domain)?.into(),
        stage: bounded("stage", message.stage, 0..=STAGE_MAX)?,
        requests: match message.request_type.as_str() {
            "" | "both" => RequestOrigin::Both,
            "internal" => RequestOrigin::Internal,
            "external" => RequestOrigin::External,
            _ => return Err(Invalid::new("request_type", "must be internal, external or both")),
        },
        service,
        failure_mode_deny: message.failure_mode_deny,
        status_on_error: status_or(
            "status_on_error",
            &message.status_on_error,
            StatusCode::INTERNAL_SERVER_ERROR,
        )?,
        limited_status: status_or(
            "rate_limited_status",
            &message.rate_limited_status,
            StatusCode::TOO_MANY_REQUESTS,
        )
        .map(|status| if status.as_u16() < 400 { StatusCode::TOO_MANY_REQUESTS } else { status })?,
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        quota_headers: quota_headers(message.enable_x_ratelimit_headers)?,
        without_limited_header: message.disable_x_envoy_ratelimited_header,
        response_headers: each("response_headers_to_add", &message.response_headers_to_add, header_add)?,
        enabled: chance("filter_enabled", &message.filter_enabled, Fraction::ALL)?,
        enforced: chance("filter_enforced", &message.filter_enforced, Fraction::ALL)?,
        limits: rate_limits("rate_limits", &message.rate_limits)?,
    })
}

pub(crate) fn global_route(message: &RateLimitPerRoute) -> Converted<GlobalRateLimitRoute> {
    use rate_limit_per_route::{OverrideOptions, VhRateLimitsOptions};
    let option: OverrideOptions = enumeration("override_option", message.override_option)?;
    refuse("override_option", option != OverrideOptions::Default)?;
    Ok(GlobalRateLimitRoute {
        host_limits: match enumeration("vh_rate_limits", message.vh_rate_limits)? {
            VhRateLimitsOptions::Override => HostLimits::Override,
            VhRateLimitsOptions::Include => HostLimits::Include,
            VhRateLimitsOptions::Ignore => HostLimits::Ignore,
        },
        limits: rate_limits("rate_limits", &message.rate_limits)?,
        domain: message.domain.as_str().into(),
    })
}

/// The limits of a route, a virtual host or a filter.
pub(crate) fn rate_limits(list: &str, messages: &[route::RateLimit]) -> Converted<Vec<RateLimit>> {
    each(list, messages, |message| {
        refuse("disable_key", !message.disable_key.is_empty())?;
        refuse("limit", message.limit.is_some())?;
        refuse("hits_addend", message.hits_addend.is_some())?;
        refuse("apply_on_stream_done", message.apply_on_stream_done)?;
        refuse("x_ratelimit_option", message.x_ratelimit_option != 0)?;
        if message.actions.is_empty() {
            return Err(Invalid::missing("actions"));
        }
        Ok(RateLimit {
            stage: bounded("stage", number(&message.stage).unwrap_or(0), 0..=STAGE_MAX)?,
            actions: each("actions", &message.actions, action)?,
        })
    })
}

fn entry(key: &str, default_key: &str, value: &str) -> Converted<DescriptorEntry> {
    let key = if key.is_empty() { default_key } else { key };
    Ok(DescriptorEntry { key: key.into(), value: not_empty("descriptor_value", value)?.into() })
}

fn action(message: &Action) -> Converted<LimitAction> {
    let bits = |field: &str, value, most| {
        bounded(field, number(value).unwrap_or(most), 0..=most).map(|it| u8::try_from(it).unwrap_or(u8::MAX))
    };
    Ok(match required("action_specifier", &message.action_specifier)? {
        ActionSpecifier::SourceCluster(_) => LimitAction::SourceCluster,
        ActionSpecifier::DestinationCluster(_) => LimitAction::DestinationCluster,
        ActionSpecifier::RemoteAddress(_) => LimitAction::RemoteAddress,
        ActionSpecifier::MaskedRemoteAddress(it) => LimitAction::MaskedRemoteAddress {
            v4_bits: bits("masked_remote_address.v4_prefix_mask_len", &it.v4_prefix_mask_len, 32)?,
            v6_bits: bits("masked_remote_address.v6_prefix_mask_len", &it.v6_prefix_mask_len, 128)?,
        },
        ActionSpecifier::RequestHeaders(it) => LimitAction::Header {
            name: header_name("request_headers.header_name", &it.header_name)?,
            key: not_empty("request_headers.descriptor_key", &it.descriptor_key)?.into(),
            skip_if_absent: it.skip_if_absent,
        },
        ActionSpecifier::QueryParameters(it) => LimitAction::Query {
            name: not_empty("query_parameters.query_parameter_name", &it.query_parameter_name)?.into(),
            key: not_empty("query_parameters.descriptor_key", &it.descriptor_key)?.into(),
            skip_if_absent: it.skip_if_absent,
        },
        ActionSpecifier::GenericKey(it) => {
            refuse("generic_key.default_value", !it.default_value.is_empty())?;
            let fixed = entry(&it.descriptor_key, "generic_key", &it.descriptor_value).at("generic_key")?;
            if fixed.value.contains('%') {
                return Err(Invalid::unsupported("generic_key.descriptor_value", "a command operator"));
            }
            LimitAction::Fixed(fixed)
        }
        ActionSpecifier::HeaderValueMatch(it) => LimitAction::HeaderMatch {
            entry: entry(&it.descriptor_key, "header_match", &it.descriptor_value)
                .at("header_value_match")?,
            expect: flag(&it.expect_match, true),
            headers: each("headers", &it.headers, header_match).at("header_value_match")?,
        },
        ActionSpecifier::QueryParameterValueMatch(it) => LimitAction::QueryMatch {
            entry: entry(&it.descriptor_key, "query_match", &it.descriptor_value)
                .at("query_parameter_value_match")?,
            expect: flag(&it.expect_match, true),
            parameters: each("query_parameters", &it.query_parameters, query_match)
                .at("query_parameter_value_match")?,
        },
        ActionSpecifier::DynamicMetadata(it) => {
            metadata(&it.metadata_key, &it.descriptor_key, &it.default_value, false).at("dynamic_metadata")?
        }
        ActionSpecifier::Metadata(it) => of_metadata(it).at("metadata")?,
        ActionSpecifier::Extension(it) => {
            return Err(Invalid::unsupported("extension", format!("action `{}`", it.name)));
        }
        ActionSpecifier::RemoteAddressMatch(_) => {
            return Err(Invalid::unsupported("remote_address_match", "this action"));
        }
    })
}

fn of_metadata(message: &MetaData) -> Converted<LimitAction> {
    if enumeration::<Source>("source", message.source)? != Source::Dynamic {
        return Err(Invalid::unsupported("source", "metadata of the route"));
    }
    metadata(&message.metadata_key, &message.descriptor_key, &message.default_value, message.skip_if_absent)
}

fn metadata(
    key: &Option<MetadataKey>,
    descriptor_key: &str,
    default: &str,
    skip_if_absent: bool,
) -> Converted<LimitAction> {
    let from = required("metadata_key", key)?;
    let path =
        each("metadata_key.path", &from.path, |segment| match required("segment", &segment.segment)? {
            Segment::Key(key) => Ok(Box::from(key.as_str())),
            Segment::Index(_) => Err(Invalid::unsupported("segment", "a place in a list")),
        })?;
    Ok(LimitAction::Metadata {
        filter: not_empty("metadata_key.key", &from.key)?.into(),
        path,
        key: Arc::from(not_empty("descriptor_key", descriptor_key)?),
        default: default.into(),
        skip_if_absent,
    })
}

#[cfg(test)]
mod tests;
