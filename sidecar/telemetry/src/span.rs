//! Spans: the contexts that travel with requests, and what is reported of a sampled one.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::trace::{B3, B3_TRACE_ID, TRACEPARENT};

/// `tracestate` of W3C Trace Context.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// A place in a trace, as headers carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace; traces of 8 bytes have zeros in front.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Whether the trace is reported; `None`: it was not said.
    pub sampled: Option<bool>,
}

/// From which side a span looks at its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// It is sent.
    Client,
    /// It is received.
    Server,
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its place.
    pub context: SpanContext,
    /// The span it belongs to.
    pub parent: Option<[u8; 8]>,
    /// The identifier is the client's own.
    pub shared: bool,
    /// `tracestate` of the request, passed on.
    pub state: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its side.
    pub kind: SpanKind,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// What it says.
    pub tags: Vec<(Cow<'static, str>, String)>,
    /// The request failed.
    pub failed: bool,
}

impl SpanContext {
    /// Reads `traceparent`; none if it is not one. A later version is read as far as this one goes.
    pub fn from_w3c(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex::<1>(version)?[0];
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let flags = hex::<1>(flags)?[0];
        Self::new(hex(trace)?, hex(span)?, Some(flags & 1 == 1))
    }

    /// Reads `b3`, else `x-b3-*`; none if there is no valid one.
    pub fn from_b3(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(single) = text(&B3) {
            let mut parts = single.split('-');
            let (trace, span) = (wide(parts.next()?)?, hex(parts.next()?)?);
            return Self::new(trace, span, parts.next().and_then(decision));
        }
        let sampled =
            if text(&B3_FLAGS) == Some("1") { Some(true) } else { text(&B3_SAMPLED).and_then(decision) };
        Self::new(wide(text(&B3_TRACE_ID)?)?, hex(text(&B3_SPAN_ID)?)?, sampled)
    }

    /// What B3 headers say of sampling where they name no span: `b3: 0`, or `x-b3-sampled` alone.
    pub fn b3_decision(headers: &HeaderMap) -> Option<bool> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        text(&B3).or_else(|| text(&B3_SAMPLED)).and_then(decision)
    }

    fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: Option<bool>) -> Option<Self> {
        let valid = trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self { trace_id, span_id, sampled })
    }

    /// Writes `traceparent`.
    pub fn write_w3c(&self, headers: &mut HeaderMap) {
        let flags = if self.sampled == Some(true) { "01" } else { "00" };
        let text = format!("00-{}-{}-{flags}", Hex(&self.trace_id), Hex(&self.span_id));
        set(headers, TRACEPARENT, &text);
    }

    /// Writes `x-b3-*`, and `b3` where there was one.
    pub fn write_b3(&self, parent: Option<[u8; 8]>, headers: &mut HeaderMap) {
        let sampled = if self.sampled == Some(true) { "1" } else { "0" };
        let (trace, span) = (Hex(self.trace_text()).to_string(), Hex(&self.span_id).to_string());
        set(headers, B3_TRACE_ID, &trace);
        set(headers, B3_SPAN_ID, &span);
        match parent {
            Some(parent) => set(headers, B3_PARENT_ID, &Hex(&parent).to_string()),
            None => drop(headers.remove(B3_PARENT_ID)),
        }
        set(headers, B3_SAMPLED, sampled);
        headers.remove(B3_FLAGS);
        if headers.contains_key(B3) {
            let parent = parent.map_or_else(String::new, |parent| format!("-{}", Hex(&parent)));
            set(headers, B3, &format!("{trace}-{span}-{sampled}{parent}"));
        }
    }

    /// The bytes of the trace's identifier as they are written: 8 or 16.
    pub(crate) fn trace_text(&self) -> &[u8] {
        if self.trace_id[..8] == [0; 8] { &self.trace_id[8..] } else { &self.trace_id }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn decision(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Exactly `N` bytes of hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A trace identifier of 8 or 16 bytes.
fn wide(text: &str) -> Option<[u8; 16]> {
    if text.len() != 16 {
        return hex(text);
    }
    let mut whole = [0; 16];
    whole[8..].copy_from_slice(&hex::<8>(text)?);
    Some(whole)
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub use crate::otlp::{encode as encode_otlp, grpc_frame};
pub use crate::zipkin::encode as encode_zipkin;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn w3c_is_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = SpanContext::from_w3c(&headers(&[("traceparent", text)])).unwrap();
        assert_eq!((context.trace_id[0], context.sampled), (0x0a, Some(true)));
        let mut out = HeaderMap::new();
        context.write_w3c(&mut out);
        assert_eq!(out["traceparent"], text);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031\u{e9}-b7ad6b7169203331-01",
        ] {
            let mut map = HeaderMap::new();
            map.insert(TRACEPARENT, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(SpanContext::from_w3c(&map), None, "{bad}");
        }
    }

    #[test]
    fn b3_is_read_in_both_forms_and_written_in_that_which_came() {
        let single =
            headers(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")]);
        let context = SpanContext::from_b3(&single).unwrap();
        assert_eq!(context.sampled, Some(true));
        let mut out = single.clone();
        context.write_b3(Some([1; 8]), &mut out);
        assert_eq!(out["b3"], "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-0101010101010101");
        assert_eq!(out["x-b3-spanid"], "e457b5a2e4d86bd1");

        let many = headers(&[
            ("x-b3-traceid", "64fe8b2a57d3eff7"),
            ("x-b3-spanid", "e457b5a2e4d86bd1"),
            ("x-b3-flags", "1"),
        ]);
        let context = SpanContext::from_b3(&many).unwrap();
        assert_eq!((context.trace_text().len(), context.sampled), (8, Some(true)));
        let mut out = HeaderMap::new();
        context.write_b3(None, &mut out);
        assert_eq!(out["x-b3-traceid"], "64fe8b2a57d3eff7");
        assert!(!out.contains_key("b3") && !out.contains_key("x-b3-parentspanid"));

        assert_eq!(SpanContext::from_b3(&headers(&[("b3", "0")])), None);
        assert_eq!(SpanContext::b3_decision(&headers(&[("b3", "0")])), Some(false));
        assert_eq!(SpanContext::b3_decision(&headers(&[("x-b3-sampled", "1")])), Some(true));
    }
}
