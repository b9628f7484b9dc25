//! Time as the API writes it: RFC 3339 in UTC, whole seconds (`Time`) or microseconds (`MicroTime`).

use jiff::Timestamp;

/// Now, by the wall clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// As `metadata.creationTimestamp` has it: `2026-11-21T01:02:03Z`.
#[must_use]
pub fn format(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As a Lease's `renewTime` has it: `2026-11-21T01:02:03.000004Z`.
#[must_use]
pub fn format_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads either form, with any offset. `None` for anything that is not a time.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_read_back() {
        let at = parse("2026-11-21T01:02:03.000004Z").unwrap();
        assert_eq!(format(at), "2026-11-21T01:02:03Z");
        assert_eq!(format_micro(at), "2026-11-21T01:02:03.000004Z");
        assert_eq!(parse(&format_micro(at)), Some(at));
        assert_eq!(parse("2026-11-21T03:02:03+02:00").map(format), Some("2026-11-21T01:02:03Z".to_owned()));
        assert_eq!(parse("yesterday"), None);
    }
}
