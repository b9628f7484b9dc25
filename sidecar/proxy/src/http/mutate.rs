//! Header changes of routes, hosts, clusters and filters.

use http::{HeaderMap, HeaderValue};
use sidecar_model::{HeaderAppend, HeaderOps};
use sidecar_telemetry::Entry;
use sidecar_telemetry::log::Format;

use super::record::Record;

/// Which side's headers are changed: the other side's stay readable for command operators.
pub(super) enum Side<'a> {
    /// Those of the request.
    Request,
    /// Those of the response; the request's are these.
    Response(&'a HeaderMap),
}

/// Applies changes as Envoy does: removals first; then all values are made from what is there, and decide by it whether they are
/// wanted; then what overwrites is written, and what adds is added.
pub(super) fn apply(ops: &HeaderOps, headers: &mut HeaderMap, record: &Record, side: &Side<'_>) {
    if ops.is_empty() {
        return;
    }
    for name in &ops.remove {
        headers.remove(name);
    }
    let (mut overwritten, mut added) = (Vec::new(), Vec::new());
    for add in &ops.add {
        let exists = headers.contains_key(&add.name);
        let list = match add.append {
            HeaderAppend::AppendOrAdd => &mut added,
            HeaderAppend::AddIfAbsent if !exists => &mut added,
            HeaderAppend::OverwriteOrAdd => &mut overwritten,
            HeaderAppend::OverwriteIfExists if exists => &mut overwritten,
            HeaderAppend::AddIfAbsent | HeaderAppend::OverwriteIfExists => continue,
        };
        let value = if add.value.contains('%') {
            let none = HeaderMap::new();
            let mut entry = Entry::new(&none);
            record.fill(&mut entry);
            match side {
                Side::Request => entry.request = &*headers,
                Side::Response(request) => {
                    entry.request = *request;
                    entry.response = &*headers;
                }
            }
            let mut text = String::new();
            Format::lenient(&add.value).write_or(&entry, "", &mut text);
            HeaderValue::try_from(text)
        } else {
            HeaderValue::from_str(&add.value)
        };
        let Ok(value) = value else { continue };
        if value.is_empty() && !add.keep_empty {
            continue;
        }
        list.push((add.name.clone(), value));
    }
    for (name, value) in overwritten {
        headers.insert(name, value);
    }
    for (name, value) in added {
        headers.append(name, value);
    }
}
