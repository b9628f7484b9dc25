//! Query strings: percent-decoding and repeated keys. Pure.

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

// === impl Query ===

impl Query {
    /// Takes a query string apart; what is not valid UTF-8 is replaced.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// The first value of `key`.
    pub(crate) fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// All values of `key`.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.pairs.iter().filter(|(known, _)| known == key).map(|(_, value)| value.clone()).collect()
    }

    /// Whether one of `keys` says yes, as the API server (`stdin=true`) or an older kubelet client (`input=1`) writes it.
    pub(crate) fn flag(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| matches!(self.first(key), Some("1" | "true")))
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, next) = match first {
            b'+' => (b' ', tail),
            b'%' => match tail.get(..2).and_then(hex) {
                Some(byte) => (byte, &tail[2..]),
                None => (b'%', tail),
            },
            other => (*other, tail),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(*digits.first()?)? << 4 | value(*digits.get(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_encoded_parameters() {
        let query =
            Query::parse("command=sh&command=-c&command=echo+%22a%20b%22%3d&tty=true&input=1&broken=%zz%4");
        assert_eq!(query.all("command"), ["sh", "-c", "echo \"a b\"="]);
        assert!(query.flag(&["tty"]) && query.flag(&["stdin", "input"]) && !query.flag(&["output"]));
        assert_eq!(query.first("broken"), Some("%zz%4"));
        assert_eq!(Query::parse("").first("x"), None);
    }
}
