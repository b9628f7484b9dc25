//! `envoy.type.matcher.v3`, `envoy.config.route.v3.HeaderMatcher` and `QueryParameterMatcher`, fractions.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{
    Fraction, HeaderKey, HeaderMatch, HeaderValueMatch, MetadataMatch, QueryMatch, Regex, RegexRewrite,
    StringMatch, StringPattern, ValueMatch,
};
use crate::convert::{At, Converted, each, enumeration, header_name, not_empty, percent, required};
use crate::invalid::Invalid;
use policies_xds::matcher::string_matcher::MatchPattern;
use policies_xds::matcher::{
    self, double_matcher, list_matcher, metadata_matcher, path_matcher, value_matcher,
};
use policies_xds::route::header_matcher::HeaderMatchSpecifier;
use policies_xds::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use policies_xds::types::fractional_percent::DenominatorType;
use policies_xds::{core, route, types};

/// Longest regular expression read; Istio allows 1,024 characters in its API.
const REGEX_SOURCE_BYTES_MAX: usize = 16 * 1024;

pub(crate) fn regex(message: &matcher::RegexMatcher) -> Converted<Regex> {
    Regex::new(source(message)?).at("regex")
}

fn source(message: &matcher::RegexMatcher) -> Converted<&str> {
    let source = not_empty("regex", &message.regex)?;
    if source.len() > REGEX_SOURCE_BYTES_MAX {
        return Err(Invalid::new("regex", format!("must not have more than {REGEX_SOURCE_BYTES_MAX} bytes")));
    }
    Ok(source)
}

pub(crate) fn regex_rewrite(message: &matcher::RegexMatchAndSubstitute) -> Converted<RegexRewrite> {
    let pattern = required("pattern", &message.pattern)?;
    RegexRewrite::new(source(pattern).at("pattern")?, &message.substitution)
}

pub(crate) fn string_match(message: &matcher::StringMatcher) -> Converted<StringMatch> {
    let pattern = match required("match_pattern", &message.match_pattern)? {
        MatchPattern::Exact(text) => StringPattern::Exact(text.as_str().into()),
        MatchPattern::Prefix(text) => StringPattern::Prefix(not_empty("prefix", text)?.into()),
        MatchPattern::Suffix(text) => StringPattern::Suffix(not_empty("suffix", text)?.into()),
        MatchPattern::Contains(text) => StringPattern::Contains(not_empty("contains", text)?.into()),
        MatchPattern::SafeRegex(message) => StringPattern::Regex(regex(message).at("safe_regex")?),
        MatchPattern::Custom(_) => return Err(Invalid::unsupported("custom", "a custom matcher")),
    };
    // Envoy passes over `ignore_case` at regular expressions.
    let ignore_case = message.ignore_case && !matches!(pattern, StringPattern::Regex(_));
    Ok(StringMatch { pattern, ignore_case })
}

pub(crate) fn path_match(message: &matcher::PathMatcher) -> Converted<StringMatch> {
    let path_matcher::Rule::Path(path) = required("path", &message.rule)?;
    string_match(path).at("path")
}

pub(crate) fn header_match(message: &route::HeaderMatcher) -> Converted<HeaderMatch> {
    let plain = |pattern| HeaderValueMatch::String(StringMatch { pattern, ignore_case: false });
    let mut invert = message.invert_match;
    let value = match &message.header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => HeaderValueMatch::Present,
        Some(HeaderMatchSpecifier::PresentMatch(false)) => {
            invert = !invert;
            HeaderValueMatch::Present
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => plain(StringPattern::Exact(text.as_str().into())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            plain(StringPattern::Prefix(not_empty("prefix_match", text)?.into()))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            plain(StringPattern::Suffix(not_empty("suffix_match", text)?.into()))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            plain(StringPattern::Contains(not_empty("contains_match", text)?.into()))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(message)) => {
            plain(StringPattern::Regex(regex(message).at("safe_regex_match")?))
        }
        Some(HeaderMatchSpecifier::StringMatch(message)) => {
            HeaderValueMatch::String(string_match(message).at("string_match")?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            HeaderValueMatch::Range { start: range.start, end: range.end }
        }
    };
    let key = header_key("name", &message.name)?;
    Ok(HeaderMatch { key, value, invert, treat_missing_as_empty: message.treat_missing_header_as_empty })
}

pub(crate) fn header_key(field: &str, name: &str) -> Converted<HeaderKey> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderKey::Method,
        ":authority" | "host" => HeaderKey::Authority,
        ":path" => HeaderKey::Path,
        ":scheme" => HeaderKey::Scheme,
        _ => HeaderKey::Name(header_name(field, name)?),
    })
}

pub(crate) fn query_match(message: &route::QueryParameterMatcher) -> Converted<QueryMatch> {
    let name = not_empty("name", &message.name)?.into();
    let value = match &message.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(Invalid::unsupported("present_match", "a parameter that must be absent"));
        }
        Some(QueryParameterMatchSpecifier::StringMatch(message)) => {
            Some(string_match(message).at("string_match")?)
        }
    };
    Ok(QueryMatch { name, value })
}

pub(crate) fn metadata_match(message: &matcher::MetadataMatcher) -> Converted<MetadataMatch> {
    let path = each("path", &message.path, |segment| {
        let metadata_matcher::path_segment::Segment::Key(key) = required("key", &segment.segment)?;
        Ok(not_empty("key", key)?.into())
    })?;
    if path.is_empty() {
        return Err(Invalid::missing("path"));
    }
    Ok(MetadataMatch {
        filter: not_empty("filter", &message.filter)?.into(),
        path,
        value: value_match(required("value", &message.value)?).at("value")?,
        invert: message.invert,
    })
}

fn value_match(message: &matcher::ValueMatcher) -> Converted<ValueMatch> {
    use value_matcher::MatchPattern as Pattern;
    Ok(match required("match_pattern", &message.match_pattern)? {
        Pattern::NullMatch(_) => ValueMatch::Null,
        Pattern::BoolMatch(value) => ValueMatch::Bool(*value),
        Pattern::PresentMatch(value) => ValueMatch::Present(*value),
        Pattern::StringMatch(message) => ValueMatch::String(string_match(message).at("string_match")?),
        Pattern::DoubleMatch(message) => match required("double_match", &message.match_pattern)? {
            double_matcher::MatchPattern::Range(range) => {
                ValueMatch::Range { start: range.start, end: range.end }
            }
            double_matcher::MatchPattern::Exact(value) => ValueMatch::Number(*value),
        },
        Pattern::ListMatch(message) => {
            let list_matcher::MatchPattern::OneOf(one) = required("list_match", &message.match_pattern)?;
            ValueMatch::OneOf(Box::new(value_match(one).at("list_match.one_of")?))
        }
        Pattern::OrMatch(message) => {
            ValueMatch::Or(each("or_match.value_matchers", &message.value_matchers, value_match)?)
        }
    })
}

pub(crate) fn fraction(message: &types::FractionalPercent) -> Converted<Fraction> {
    let factor = match enumeration("denominator", message.denominator)? {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    Ok(Fraction { per_million: message.numerator.saturating_mul(factor).min(1_000_000) })
}

/// A fraction that a runtime could override; there is none here, so its default holds.
pub(crate) fn runtime_fraction(message: &core::RuntimeFractionalPercent) -> Converted<Fraction> {
    message.default_value.as_ref().map_or(Ok(Fraction::ALL), fraction).at("default_value")
}

/// A percentage in floating point, `default` when it is absent.
pub(crate) fn percent_fraction(
    field: &str,
    message: &Option<types::Percent>,
    default: f64,
) -> Converted<Fraction> {
    let parts = (percent(field, message, default)? * 10_000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
    Ok(Fraction { per_million: parts as u32 })
}

/// What `*` and `**` take in a template: characters that RFC 3986 lets stand in a path, the star excepted, as in Envoy.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+";
const ANY_SEGMENTS: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*";

/// Turns a path template (`/a/*`, `/a/**`, `/a/{name}/b`, `/a/{name=**}`, also `{*}` and `{**}`) into an expression.
pub(crate) fn path_template(template: &str) -> Converted<Regex> {
    if !template.starts_with('/') {
        return Err(Invalid::new("path_template", "must start with a slash"));
    }
    let mut expression = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(at) = rest.find(['*', '{', '}']) {
        let (literal, operator) = rest.split_at(at);
        expression.push_str(&escape(literal));
        rest = if let Some(after) = operator.strip_prefix("**") {
            expression.push_str(ANY_SEGMENTS);
            after
        } else if let Some(after) = operator.strip_prefix('*') {
            expression.push_str(SEGMENT);
            after
        } else {
            let (variable, after) = operator
                .strip_prefix('{')
                .and_then(|inside| inside.split_once('}'))
                .ok_or_else(|| Invalid::new("path_template", "has an unmatched brace"))?;
            expression.push_str(&variable_expression(variable)?);
            after
        };
    }
    expression.push_str(&escape(rest));
    Regex::new(&expression).at("path_template")
}

fn variable_expression(variable: &str) -> Converted<String> {
    let pattern = match variable.split_once('=') {
        Some((name, pattern)) if is_identifier(name) => pattern,
        Some((name, _)) => {
            return Err(Invalid::new("path_template", format!("`{}` is not a name", name.escape_debug())));
        }
        None if is_identifier(variable) => "*",
        None => variable,
    };
    let segments = pattern.split('/').map(|segment| match segment {
        "*" => Ok(SEGMENT.to_owned()),
        "**" => Ok(ANY_SEGMENTS.to_owned()),
        literal if !literal.is_empty() && !literal.contains(['*', '{']) => Ok(escape(literal)),
        _ => Err(Invalid::new(
            "path_template",
            format!("`{}` is not a pattern of a variable", variable.escape_debug()),
        )),
    });
    Ok(segments.collect::<Converted<Vec<_>>>()?.join("/"))
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn escape(literal: &str) -> String {
    regex::escape(literal)
}

#[cfg(test)]
mod tests;
