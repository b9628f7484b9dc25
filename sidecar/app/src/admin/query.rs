//! The query of an admin request.

/// Pairs that are looked at; more are refused.
const PAIRS_MAX: usize = 16;

/// Decoded pairs, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PAIRS_MAX {
                return Err("too many parameters");
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(key)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; empty if it has none.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Whether JSON is wanted instead of text.
    pub(super) fn is_json(&self) -> Result<bool, String> {
        match self.get("format") {
            Some("json") => Ok(true),
            None | Some("text") => Ok(false),
            Some(other) => Err(format!("`format` must be json or text, not `{other}`")),
        }
    }

    /// A regular expression, found anywhere in a text.
    pub(super) fn regex(&self, key: &str) -> Result<Option<regex::Regex>, String> {
        let Some(source) = self.get(key) else { return Ok(None) };
        let built = regex::RegexBuilder::new(source).size_limit(1 << 20).build();
        built.map(Some).map_err(|_| format!("`{key}` is not a regular expression: {source}"))
    }
}

fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                let value = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(value.ok_or("a percent sign is not followed by two hexadecimal digits")?);
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| "a parameter is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_bounded() {
        let query = Query::parse("usedonly&filter=cluster%5C.a+b&format=json").unwrap();
        assert_eq!((query.get("usedonly"), query.get("filter")), (Some(""), Some("cluster\\.a b")));
        assert_eq!((query.is_json(), query.get("none")), (Ok(true), None));
        for bad in ["a=%", "a=%zz", "a=%ff", &"a&".repeat(PAIRS_MAX + 1)] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert!(Query::parse("filter=(").unwrap().regex("filter").is_err());
    }
}
