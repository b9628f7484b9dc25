//! Rules for names, labels and annotations, and names made up by the server.
//!
//! Each `check_*` answers the problems in the words users of Kubernetes know; an empty list means valid.

use rand::Rng;

/// No vowels and nothing that looks like another letter, so that no words and no mistakes come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const GENERATED_MAX: usize = 63;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A DNS-1123 label: namespaces, containers, ports of pods.
#[must_use]
pub fn check_label(name: &str) -> Vec<String> {
    check(name, 63, is_label(name), LABEL_1123)
}

/// A DNS-1123 subdomain: most objects.
#[must_use]
pub fn check_subdomain(name: &str) -> Vec<String> {
    check(name, 253, name.split('.').all(is_label), SUBDOMAIN_1123)
}

/// A DNS-1035 label: Services.
#[must_use]
pub fn check_service(name: &str) -> Vec<String> {
    check(name, 63, is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035)
}

/// A name that may stand in a path: roles and bindings.
#[must_use]
pub fn check_path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ['/', '%'].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The key of a label or annotation: `name` or `prefix/name`.
#[must_use]
pub fn check_label_key(key: &str) -> Vec<String> {
    let parts: Vec<_> = key.split('/').collect();
    let (mut problems, name) = match parts.as_slice() {
        [name] => (Vec::new(), *name),
        ["", name] => (vec!["prefix part must be non-empty".to_owned()], *name),
        [prefix, name] => (
            check_subdomain(prefix).into_iter().map(|problem| format!("prefix part {problem}")).collect(),
            *name,
        ),
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_qualified(name) {
        problems.push(format!("name part {QUALIFIED}"));
    }
    problems
}

/// The value of a label.
#[must_use]
pub fn check_label_value(value: &str) -> Vec<String> {
    check(value, 63, value.is_empty() || is_qualified(value), LABEL_VALUE)
}

fn check(name: &str, bytes_max: usize, shape: bool, rule: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > bytes_max {
        problems.push(format!("must be no more than {bytes_max} bytes"));
    }
    if !shape {
        problems.push(rule.to_owned());
    }
    problems
}

fn is_label(name: &str) -> bool {
    let alphanumeric = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.bytes().all(|c| alphanumeric(&c) || c == b'-')
        && name.as_bytes().first().is_some_and(alphanumeric)
        && name.as_bytes().last().is_some_and(alphanumeric)
}

fn is_qualified(name: &str) -> bool {
    name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.as_bytes().last().is_some_and(u8::is_ascii_alphanumeric)
}

/// A name that begins with `base` and ends with five random characters.
#[must_use]
pub fn generate(base: &str) -> String {
    let mut random = rand::rng();
    let mut end = base.len().min(GENERATED_MAX - SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.extend((0..SUFFIX).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])));
    name
}

/// A hash as a name part: its decimal digits in the alphabet of generated names, as `pod-template-hash` looks.
#[must_use]
pub fn encode_hash(hash: u32) -> String {
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a-b", "0", "x1"] {
            assert!(check_label(good).is_empty(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a.b", "a_b", "ä", "a b"] {
            assert_eq!(check_label(bad).len(), 1, "{bad}");
        }
        assert_eq!(check_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(check_subdomain("a.b-c.d").is_empty());
        for bad in ["", ".", "a..b", "a.", "A.b"] {
            assert!(!check_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(check_service("a1").is_empty() && !check_service("1a").is_empty());
        assert!(check_path_segment("system:node").is_empty() && !check_path_segment("a/b").is_empty());
        assert!(!check_path_segment("..").is_empty());
    }

    #[test]
    fn labels() {
        for good in ["a", "A_b.c", "example.com/x", "a/b"] {
            assert!(check_label_key(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "Ex.com/x", "a b"] {
            assert!(!check_label_key(bad).is_empty(), "{bad}");
        }
        assert!(check_label_value("").is_empty() && check_label_value("v1.2_3").is_empty());
        assert!(!check_label_value("a b").is_empty() && !check_label_value("-").is_empty());
    }

    #[test]
    fn generated_names_are_valid() {
        let long = format!("{}ä", "x".repeat(57));
        for base in ["web-", "", "a.b-", long.as_str(), &"y".repeat(300)] {
            let name = generate(base);
            assert!(name.len() <= 63);
            assert!(name.is_ascii() && check_subdomain(&name).is_empty(), "{name}");
        }
        assert_ne!(generate("a-"), generate("a-"));
        assert_eq!(encode_hash(0), "4");
    }
}
