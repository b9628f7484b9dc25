//! `envoy.config.core.v3.HeaderValueOption` and lists of names to remove.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{HeaderAdd, HeaderAppend, HeaderOps};
use crate::convert::{Converted, each, enumeration, header_name, header_text, required};
use crate::invalid::Invalid;
use http::HeaderName;
use policies_xds::core::HeaderValueOption;
use policies_xds::core::header_value_option::HeaderAppendAction;

/// Changes as routes write them; `prefix` is `request` or `response`.
pub(crate) fn header_ops(prefix: &str, add: &[HeaderValueOption], remove: &[String]) -> Converted<HeaderOps> {
    Ok(HeaderOps {
        add: each(&format!("{prefix}_headers_to_add"), add, header_add)?,
        remove: each(&format!("{prefix}_headers_to_remove"), remove, |name| changeable("", name))?,
    })
}

pub(crate) fn header_add(message: &HeaderValueOption) -> Converted<HeaderAdd> {
    let header = required("header", &message.header)?;
    let value = if header.raw_value.is_empty() {
        header.value.as_str()
    } else {
        std::str::from_utf8(&header.raw_value)
            .map_err(|_| Invalid::new("header.raw_value", "must be UTF-8"))?
    };
    let append = match (&message.append, enumeration("append_action", message.append_action)?) {
        (Some(append), _) if append.value => HeaderAppend::AppendOrAdd,
        (Some(_), _) => HeaderAppend::OverwriteOrAdd,
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => HeaderAppend::AppendOrAdd,
        (None, HeaderAppendAction::AddIfAbsent) => HeaderAppend::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => HeaderAppend::OverwriteOrAdd,
        (None, HeaderAppendAction::OverwriteIfExists) => HeaderAppend::OverwriteIfExists,
    };
    Ok(HeaderAdd {
        name: changeable("header.key", &header.key)?,
        value: header_text("header.value", value)?.into(),
        append,
        keep_empty: message.keep_empty_value,
    })
}

/// Pseudo headers and the host are changed by rewrites only.
pub(crate) fn changeable(field: &str, name: &str) -> Converted<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(Invalid::new(
            field,
            format!("`{}` must not be changed as a header", name.escape_debug()),
        ));
    }
    header_name(field, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::core::HeaderValue;
    use policies_xds::protobuf::BoolValue;

    fn option(key: &str, value: &str) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn the_old_flag_wins_over_the_action() {
        let with = |append: Option<bool>, action: HeaderAppendAction| {
            let append = append.map(|value| BoolValue { value });
            let message = HeaderValueOption { append, append_action: action.into(), ..option("X-A", "1") };
            header_add(&message).unwrap().append
        };
        assert_eq!(with(None, HeaderAppendAction::AddIfAbsent), HeaderAppend::AddIfAbsent);
        assert_eq!(with(Some(false), HeaderAppendAction::AddIfAbsent), HeaderAppend::OverwriteOrAdd);
        assert_eq!(with(Some(true), HeaderAppendAction::OverwriteIfExists), HeaderAppend::AppendOrAdd);
        assert_eq!(header_add(&option("X-A", "%REQ(x)%")).unwrap().name, "x-a");
    }

    #[test]
    fn what_would_break_a_message_is_refused() {
        assert_eq!(header_add(&option(":path", "/")).unwrap_err().field, "header.key");
        assert_eq!(header_add(&option("Host", "a")).unwrap_err().field, "header.key");
        assert_eq!(header_add(&option("x y", "a")).unwrap_err().field, "header.key");
        assert_eq!(header_add(&option("x", "a\r\nb: c")).unwrap_err().field, "header.value");
        let error = header_ops("request", &[option("a", "b"), option("", "")], &[]).unwrap_err();
        assert_eq!(error.field, "request_headers_to_add[1].header.key");
        let error = header_ops("response", &[], &["ok".into(), "n\0".into()]).unwrap_err();
        assert_eq!(error.field, "response_headers_to_remove[1]");
    }
}
