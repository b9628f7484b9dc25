//! Evaluates expressions over an entry. A value that is not there makes what depends on it unknown, and an unknown filter lets nothing
//! through, as in Envoy.

use std::borrow::Cow;
use std::cmp::Ordering;

use http::HeaderName;
use sidecar_model::cel::{Attribute, Comparison, Expression, Fact, Node, TextTest};

use super::entry::Entry;

#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Duration(i64),
    Null,
    List(Vec<Value<'a>>),
}

/// Whether the expression is true of the entry.
pub(crate) fn holds(expression: &Expression, entry: &Entry<'_>) -> bool {
    evaluate(expression.root(), entry) == Some(Value::Bool(true))
}

/// Headers of requests and of responses that the expression looks at.
pub(crate) fn headers(
    expression: &Expression,
    request: &mut Vec<HeaderName>,
    response: &mut Vec<HeaderName>,
) {
    expression.attributes(&mut |attribute| match attribute {
        Attribute::RequestHeader(name) => request.push(name.clone()),
        Attribute::ResponseHeader(name) => response.push(name.clone()),
        Attribute::Fact(Fact::RequestId) => request.push(HeaderName::from_static("x-request-id")),
        Attribute::Fact(Fact::RequestUserAgent) => request.push(http::header::USER_AGENT),
        Attribute::Fact(Fact::RequestReferer) => request.push(http::header::REFERER),
        Attribute::Fact(_) => {}
    });
}

fn evaluate<'a>(node: &'a Node, entry: &'a Entry<'_>) -> Option<Value<'a>> {
    let truth = |node| match evaluate(node, entry) {
        Some(Value::Bool(truth)) => Some(truth),
        _ => None,
    };
    Some(match node {
        Node::Bool(truth) => Value::Bool(*truth),
        Node::Int(value) => Value::Int(*value),
        Node::Double(value) => Value::Double(*value),
        Node::Text(text) => Value::Text(Cow::Borrowed(text)),
        Node::Duration(nanos) => Value::Duration(*nanos),
        Node::Null => Value::Null,
        Node::List(items) => {
            Value::List(items.iter().map(|item| evaluate(item, entry)).collect::<Option<_>>()?)
        }
        Node::Attribute(attribute) => lookup(attribute, entry)?,
        Node::Has(attribute) => Value::Bool(lookup(attribute, entry).is_some()),
        Node::Not(inner) => Value::Bool(!truth(inner)?),
        Node::Negative(inner) => match evaluate(inner, entry)? {
            Value::Int(value) => Value::Int(value.checked_neg()?),
            Value::Double(value) => Value::Double(-value),
            _ => return None,
        },
        // One side may decide whatever becomes of the other.
        Node::And(left, right) => match (truth(left), truth(right)) {
            (Some(false), _) | (_, Some(false)) => Value::Bool(false),
            (Some(true), Some(true)) => Value::Bool(true),
            _ => return None,
        },
        Node::Or(left, right) => match (truth(left), truth(right)) {
            (Some(true), _) | (_, Some(true)) => Value::Bool(true),
            (Some(false), Some(false)) => Value::Bool(false),
            _ => return None,
        },
        Node::Conditional(parts) => {
            let [condition, then, other] = &**parts;
            evaluate(if truth(condition)? { then } else { other }, entry)?
        }
        Node::Compare(how, left, right) => {
            Value::Bool(compare(*how, &evaluate(left, entry)?, &evaluate(right, entry)?)?)
        }
        Node::Arithmetic(operator, left, right) => {
            calculate(*operator, evaluate(left, entry)?, evaluate(right, entry)?)?
        }
        Node::In(item, list) => match (evaluate(item, entry)?, evaluate(list, entry)?) {
            (item, Value::List(all)) => Value::Bool(all.contains(&item)),
            _ => return None,
        },
        Node::Test(test, text, part) => {
            let (text, part) = (as_text(evaluate(text, entry)?)?, as_text(evaluate(part, entry)?)?);
            Value::Bool(match test {
                TextTest::StartsWith => text.starts_with(&*part),
                TextTest::EndsWith => text.ends_with(&*part),
                TextTest::Contains => text.contains(&*part),
            })
        }
        Node::Matches(text, regex) => Value::Bool(regex.is_match(&as_text(evaluate(text, entry)?)?)),
        Node::Size(inner) => match evaluate(inner, entry)? {
            Value::Text(text) => Value::Int(i64::try_from(text.chars().count()).ok()?),
            Value::List(items) => Value::Int(i64::try_from(items.len()).ok()?),
            _ => return None,
        },
        Node::String(inner) => Value::Text(match evaluate(inner, entry)? {
            Value::Text(text) => text,
            Value::Int(value) => Cow::Owned(value.to_string()),
            Value::Double(value) => Cow::Owned(value.to_string()),
            Value::Bool(value) => Cow::Owned(value.to_string()),
            _ => return None,
        }),
        Node::ToInt(inner) => match evaluate(inner, entry)? {
            Value::Int(value) => Value::Int(value),
            Value::Text(text) => Value::Int(text.parse().ok()?),
            _ => return None,
        },
    })
}

fn as_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn compare(how: Comparison, left: &Value<'_>, right: &Value<'_>) -> Option<bool> {
    let order = match (left, right) {
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match how {
        Comparison::Equal => return Some(order.map_or_else(|| left == right, Ordering::is_eq)),
        Comparison::NotEqual => return Some(order.map_or_else(|| left != right, Ordering::is_ne)),
        _ => {}
    }
    let order = order?;
    Some(match how {
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn calculate<'a>(operator: char, left: Value<'a>, right: Value<'a>) -> Option<Value<'a>> {
    Some(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Value::Int(match operator {
            '+' => a.checked_add(b)?,
            '-' => a.checked_sub(b)?,
            '*' => a.checked_mul(b)?,
            '/' => a.checked_div(b)?,
            _ => a.checked_rem(b)?,
        }),
        (Value::Double(a), Value::Double(b)) => Value::Double(match operator {
            '+' => a + b,
            '-' => a - b,
            '*' => a * b,
            '/' => a / b,
            _ => return None,
        }),
        (Value::Text(a), Value::Text(b)) if operator == '+' => Value::Text(a + b),
        _ => return None,
    })
}

fn lookup<'a>(attribute: &Attribute, entry: &'a Entry<'_>) -> Option<Value<'a>> {
    let header =
        |value: Option<&'a http::HeaderValue>| Some(Value::Text(String::from_utf8_lossy(value?.as_bytes())));
    match attribute {
        Attribute::RequestHeader(name) => header(entry.request.find(name)),
        Attribute::ResponseHeader(name) => header(entry.response.find(name)),
        Attribute::Fact(fact) => of_fact(*fact, entry),
    }
}

fn of_fact<'a>(fact: Fact, entry: &'a Entry<'_>) -> Option<Value<'a>> {
    let text = |text: &'a str| (!text.is_empty()).then_some(Value::Text(Cow::Borrowed(text)));
    let int = |value: u64| Some(Value::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    let header = |name: &HeaderName| {
        let value = entry.request.find(name)?;
        Some(Value::Text(String::from_utf8_lossy(value.as_bytes())))
    };
    let (path, query) = entry.path.split_once('?').unwrap_or((entry.path, ""));
    let address = |address: Option<std::net::SocketAddr>| Some(Value::Text(Cow::Owned(address?.to_string())));
    let port = |address: Option<std::net::SocketAddr>| Some(Value::Int(address?.port().into()));
    match fact {
        Fact::RequestPath => text(entry.path),
        Fact::RequestUrlPath => text(path),
        Fact::RequestQuery => Some(Value::Text(Cow::Borrowed(query))),
        Fact::RequestHost => text(entry.authority),
        Fact::RequestScheme => text(entry.scheme),
        Fact::RequestMethod => text(entry.method),
        Fact::RequestProtocol => text(entry.protocol),
        Fact::RequestSize | Fact::RequestTotalSize => int(entry.bytes_received),
        Fact::RequestDuration => {
            Some(Value::Duration(i64::try_from(entry.duration.as_nanos()).unwrap_or(i64::MAX)))
        }
        Fact::RequestId => header(&crate::trace::REQUEST_ID),
        Fact::RequestUserAgent => header(&http::header::USER_AGENT),
        Fact::RequestReferer => header(&http::header::REFERER),
        Fact::ResponseCode => (entry.code > 0).then_some(Value::Int(entry.code.into())),
        Fact::ResponseCodeDetails => text(entry.details),
        Fact::ResponseFlags => int(entry.flags.bits()),
        Fact::ResponseGrpcStatus => entry.grpc_status.map(|status| Value::Int(status.into())),
        Fact::ResponseSize | Fact::ResponseTotalSize => int(entry.bytes_sent),
        Fact::ConnectionId => int(entry.connection_id),
        Fact::ConnectionMtls => Some(Value::Bool(!entry.peer_uri.is_empty())),
        Fact::ConnectionServerName => text(entry.server_name),
        Fact::ConnectionTlsVersion => text(entry.tls_version),
        Fact::ConnectionPeerSubject => text(entry.peer_subject),
        Fact::ConnectionPeerUri => text(entry.peer_uri),
        Fact::ConnectionLocalUri => text(entry.local_uri),
        Fact::ConnectionTermination => text(entry.termination),
        Fact::UpstreamAddress => address(entry.upstream_host),
        Fact::UpstreamPort => port(entry.upstream_host),
        Fact::UpstreamLocalAddress => address(entry.upstream_local),
        Fact::UpstreamFailure => text(entry.transport_failure),
        Fact::UpstreamAttempts => int(entry.attempts.into()),
        Fact::SourceAddress => address(entry.downstream_remote),
        Fact::SourcePort => port(entry.downstream_remote),
        Fact::DestinationAddress => address(entry.downstream_local),
        Fact::DestinationPort => port(entry.downstream_local),
        Fact::RouteName => text(entry.route),
        Fact::VirtualHostName => text(entry.virtual_host),
        Fact::ClusterName => text(entry.upstream_cluster),
    }
}
