//! What every conversion shares: field paths on errors, Envoy's wrappers and defaults, and bounds.

use crate::invalid::Invalid;
use http::HeaderName;
use policies_xds::protobuf::{self, Any, BoolValue, UInt32Value};
use policies_xds::{core, types};
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) type Converted<T> = Result<T, Invalid>;

/// Longest duration kept; longer ones mean the same to a process and could overflow a clock.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Protobuf's own bound on the seconds of a duration.
const PROTOBUF_SECONDS_MAX: i64 = 315_576_000_000;
/// Most bytes of any buffer that configuration asks for.
const BUFFER_BYTES_MAX: u32 = 64 << 20;
/// Envoy's default for buffers of connections.
pub(crate) const BUFFER_BYTES_DEFAULT: u32 = 1 << 20;

/// Says where an error happened.
pub(crate) trait At: Sized {
    /// In the field `field`.
    fn at(self, field: &str) -> Self;
    /// In an item of the list `list`.
    fn at_item(self, list: &str, index: usize) -> Self;
}

impl<T> At for Converted<T> {
    fn at(self, field: &str) -> Self {
        self.map_err(|error| error.within(field))
    }

    fn at_item(self, list: &str, index: usize) -> Self {
        self.map_err(|error| error.within_item(list, index))
    }
}

/// Converts every item of `list`.
pub(crate) fn each<P, T>(
    list: &str,
    items: &[P],
    mut convert: impl FnMut(&P) -> Converted<T>,
) -> Converted<Vec<T>> {
    items.iter().enumerate().map(|(index, item)| convert(item).at_item(list, index)).collect()
}

pub(crate) fn required<'a, T>(field: &str, value: &'a Option<T>) -> Converted<&'a T> {
    value.as_ref().ok_or_else(|| Invalid::missing(field))
}

pub(crate) fn not_empty<'a>(field: &str, text: &'a str) -> Converted<&'a str> {
    if text.is_empty() { Err(Invalid::missing(field)) } else { Ok(text) }
}

/// Refuses what this sidecar does not do instead of passing over it.
pub(crate) fn refuse(field: &str, is_set: bool) -> Converted<()> {
    if is_set { Err(Invalid::unsupported(field, "this field")) } else { Ok(()) }
}

pub(crate) fn duration(field: &str, value: &protobuf::Duration) -> Converted<Duration> {
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let seconds = u64::try_from(value.seconds).ok().filter(|_| value.seconds <= PROTOBUF_SECONDS_MAX);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos).min(DURATION_MAX)),
        _ => Err(Invalid::new(field, "must be a duration that is not negative")),
    }
}

pub(crate) fn optional_duration(
    field: &str,
    value: &Option<protobuf::Duration>,
) -> Converted<Option<Duration>> {
    value.as_ref().map(|value| duration(field, value)).transpose()
}

pub(crate) fn duration_or(
    field: &str,
    value: &Option<protobuf::Duration>,
    default: Duration,
) -> Converted<Duration> {
    Ok(optional_duration(field, value)?.unwrap_or(default))
}

/// A duration that must be longer than zero.
pub(crate) fn positive_duration(
    field: &str,
    value: &Option<protobuf::Duration>,
    default: Duration,
) -> Converted<Duration> {
    let value = duration_or(field, value, default)?;
    if value.is_zero() { Err(Invalid::new(field, "must be longer than zero")) } else { Ok(value) }
}

/// A timeout: absent means `default`, zero means off.
pub(crate) fn timeout(
    field: &str,
    value: &Option<protobuf::Duration>,
    default: Option<Duration>,
) -> Converted<Option<Duration>> {
    Ok(optional_duration(field, value)?.or(default).filter(|timeout| !timeout.is_zero()))
}

pub(crate) fn enumeration<E: TryFrom<i32>>(field: &str, value: i32) -> Converted<E> {
    E::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is not a known value")))
}

pub(crate) fn number(value: &Option<UInt32Value>) -> Option<u32> {
    value.as_ref().map(|value| value.value)
}

pub(crate) fn flag(value: &Option<BoolValue>, default: bool) -> bool {
    value.as_ref().map_or(default, |value| value.value)
}

pub(crate) fn bounded(field: &str, value: u32, range: RangeInclusive<u32>) -> Converted<u32> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(field, format!("must be from {} to {}", range.start(), range.end())))
    }
}

/// A whole percentage.
pub(crate) fn whole_percent(field: &str, value: &Option<UInt32Value>, default: u8) -> Converted<u8> {
    let value = bounded(field, number(value).unwrap_or(default.into()), 0..=100)?;
    Ok(u8::try_from(value).unwrap_or(100))
}

pub(crate) fn percent(field: &str, value: &Option<types::Percent>, default: f64) -> Converted<f64> {
    let value = value.as_ref().map_or(default, |percent| percent.value);
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(field, "must be a percentage from 0 to 100"))
    }
}

pub(crate) fn port(field: &str, value: u32) -> Converted<u16> {
    u16::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is not a port")))
}

/// Bytes of a buffer, never more than is sensible.
pub(crate) fn buffer_bytes(value: &Option<UInt32Value>) -> usize {
    usize::try_from(number(value).unwrap_or(BUFFER_BYTES_DEFAULT).min(BUFFER_BYTES_MAX)).unwrap_or(usize::MAX)
}

pub(crate) fn header_name(field: &str, name: &str) -> Converted<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid::new(field, format!("`{}` is not a header name", name.escape_debug())))
}

/// Text that goes into headers and must not break out of them.
pub(crate) fn header_text<'a>(field: &str, text: &'a str) -> Converted<&'a str> {
    if text.chars().any(char::is_control) {
        Err(Invalid::new(field, "must not have control characters"))
    } else {
        Ok(text)
    }
}

pub(crate) fn status(field: &str, value: u32) -> Converted<http::StatusCode> {
    u16::try_from(value)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| http::StatusCode::from_u16(code).ok())
        .ok_or_else(|| Invalid::new(field, format!("{value} is not a status from 200 to 599")))
}

pub(crate) fn boxed(list: &[String]) -> Vec<Box<str>> {
    list.iter().map(|text| text.as_str().into()).collect()
}

pub(crate) fn unpack<M: prost::Message + prost::Name + Default>(field: &str, any: &Any) -> Converted<M> {
    policies_xds::unpack(any).map_err(|error| Invalid::new(field, error.to_string()))
}

pub(crate) fn decode<M: prost::Message + Default>(message: &[u8]) -> Converted<M> {
    M::decode(message).map_err(|error| Invalid::new("", format!("is not a valid message: {error}")))
}

/// The bytes that a data source carries; what it only refers to is not read here.
pub(crate) fn data_bytes<'a>(field: &str, source: &'a core::DataSource) -> Converted<&'a [u8]> {
    use core::data_source::Specifier;
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.as_bytes()),
        Some(Specifier::Filename(_)) => Err(Invalid::unsupported(field, "a file")),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(Invalid::unsupported(field, "an environment variable"))
        }
        None => Err(Invalid::missing(field)),
    }
}

pub(crate) fn data_text<'a>(field: &str, source: &'a core::DataSource) -> Converted<&'a str> {
    std::str::from_utf8(data_bytes(field, source)?).map_err(|_| Invalid::new(field, "must be UTF-8"))
}

/// Only what comes over the same stream is fetched.
pub(crate) fn aggregated(field: &str, source: &Option<core::ConfigSource>) -> Converted<()> {
    use core::config_source::ConfigSourceSpecifier::{Ads, Self_};
    match source.as_ref().and_then(|source| source.config_source_specifier.as_ref()) {
        Some(Ads(_) | Self_(_)) => Ok(()),
        _ => Err(Invalid::unsupported(field, "a source other than ADS")),
    }
}
