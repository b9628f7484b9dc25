//! Durations as people write them in Kubernetes and Istio objects: `5s`, `1h30m`, `0.5s`, `100ms`, `-1s` refused.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a duration: use a number with a unit of ns, us, ms, s, m or h, such as `5s` or `1m30s`"
)]
pub struct InvalidDuration {
    /// What was written, at most 64 characters of it.
    pub text: String,
}

/// Parses Go's duration syntax (`time.ParseDuration`) without a sign; `0` needs no unit.
///
/// # Errors
/// [`InvalidDuration`] on an empty text, a missing or unknown unit, a sign, or a value beyond 2⁶³ ns.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration { text: text.chars().take(64).collect() };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ns: u128 = 0;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(invalid)?;
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let scale = unit_ns(unit).ok_or_else(invalid)?;
        total_ns = total_ns.checked_add(scaled(number, scale).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = next;
    }
    u64::try_from(total_ns)
        .ok()
        .filter(|ns| *ns <= i64::MAX as u64)
        .map(Duration::from_nanos)
        .ok_or_else(invalid)
}

/// Writes a duration as protobuf JSON and Istio do: seconds with an `s`, fractions only when there are any.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    if nanos == 0 {
        return format!("{}s", duration.as_secs());
    }
    let fraction = format!("{nanos:09}");
    format!("{}.{}s", duration.as_secs(), fraction.trim_end_matches('0'))
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = &text[..end];
    (number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1)
        .then_some((number, &text[end..]))
}

fn unit_ns(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` (digits with at most one dot) times `scale`, exact to the nanosecond, rounded down.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        if place == 0 {
            break;
        }
        total = total.checked_add(place.checked_mul(u128::from(digit - b'0'))?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("5s", 5_000),
            ("1h30m", 5_400_000),
            ("0.5s", 500),
            ("100ms", 100),
            ("0", 0),
            ("0s", 0),
            ("1.5h", 5_400_000),
            (".25s", 250),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("1us"), Ok(Duration::from_micros(1)));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "5", "s", "-1s", "1x", "1..2s", ".s", "1s ", "99999999999999999999h", "1e3s", "１s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_protobuf_json() {
        assert_eq!(format(Duration::from_millis(1500)), "1.5s");
        assert_eq!(format(Duration::from_secs(10)), "10s");
        assert_eq!(format(Duration::from_nanos(1)), "0.000000001s");
    }
}
