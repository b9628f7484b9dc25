//! Quantities: `100m`, `1.5Gi`, `2e3`, exact to a billionth.

use std::{
    cmp::Ordering,
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANO: i128 = 1_000_000_000;
/// The largest amount the API has: 2^63 − 1 units.
const MAX: i128 = i64::MAX as i128 * NANO;

const BINARY: [(&str, i128); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
/// Decimal suffixes with their size in billionths.
const DECIMAL: [(&str, i128); 10] = [
    ("E", 1_000_000_000_000_000_000 * NANO),
    ("P", 1_000_000_000_000_000 * NANO),
    ("T", 1_000_000_000_000 * NANO),
    ("G", NANO * NANO),
    ("M", 1_000_000 * NANO),
    ("k", 1_000 * NANO),
    ("", NANO),
    ("m", 1_000_000),
    ("u", 1_000),
    ("n", 1),
];

/// An amount of a resource.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    /// In billionths.
    nanos: i128,
    form: Form,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Decimal,
    Binary,
    Exponent,
}

/// A text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct InvalidQuantity;

// === impl Quantity ===

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, form: Form::Decimal };

    /// So many thousandths, as CPU is counted.
    #[must_use]
    pub const fn from_milli(milli: i64) -> Self {
        Self { nanos: milli as i128 * 1_000_000, form: Form::Decimal }
    }

    /// So many units.
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO, form: Form::Decimal }
    }

    /// So many bytes, written with binary suffixes.
    #[must_use]
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANO, form: Form::Binary }
    }

    /// In thousandths, rounded away from zero.
    #[must_use]
    pub fn milli(self) -> i64 {
        self.rounded(1_000_000)
    }

    /// In units, rounded away from zero.
    #[must_use]
    pub fn units(self) -> i64 {
        self.rounded(NANO)
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    fn rounded(self, unit: i128) -> i64 {
        let away = (self.nanos.abs() + unit - 1) / unit * self.nanos.signum();
        i64::try_from(away).unwrap_or(if away < 0 { i64::MIN } else { i64::MAX })
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (unit, form) = unit(suffix).ok_or(InvalidQuantity)?;
        let nanos = amount(number, unit).ok_or(InvalidQuantity)?;
        Ok(Self { nanos: if negative { -nanos } else { nanos }, form })
    }
}

/// How much a suffix stands for, in billionths, as a numerator and a denominator.
fn unit(suffix: &str) -> Option<((i128, i128), Form)> {
    if let Some((_, size)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some(((size * NANO, 1), Form::Binary));
    }
    if let Some((_, size)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some(((*size, 1), Form::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let exponent: i32 = exponent.parse().ok()?;
    // Beyond these everything is at the bounds anyhow.
    let power = 10_i128.pow(exponent.clamp(-27, 19).unsigned_abs());
    Some((if exponent < 0 { (NANO, power) } else { (NANO * power, 1) }, Form::Exponent))
}

/// `number` times the unit in billionths, rounded up, at most [`MAX`].
fn amount(number: &str, (numerator, denominator): (i128, i128)) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut total: i128 = 0;
    for digit in whole.bytes() {
        total = total.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    let mut nanos = total.saturating_mul(numerator);
    let mut inexact = nanos % denominator != 0;
    nanos /= denominator;
    let (mut place, mut exact) = (numerator / denominator, numerator);
    for digit in fraction.bytes() {
        let digit = i128::from(digit - b'0');
        // Each place is a tenth of the one before; what falls below a billionth rounds up.
        inexact |= digit > 0 && (place % 10 != 0 || exact % denominator != 0);
        nanos = nanos.saturating_add(place * digit / 10);
        inexact |= (place * digit) % 10 != 0;
        place /= 10;
        exact /= 10;
    }
    if inexact {
        nanos = nanos.saturating_add(1);
    }
    Some(nanos.min(MAX))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.abs();
        if nanos == 0 {
            return f.write_str("0");
        }
        let units = nanos / NANO;
        if self.form == Form::Binary && nanos % NANO == 0 {
            return match BINARY.iter().find(|(_, size)| units % size == 0) {
                Some((suffix, size)) => write!(f, "{sign}{}{suffix}", units / size),
                None => write!(f, "{sign}{units}"),
            };
        }
        let (suffix, size) = DECIMAL.iter().find(|(_, size)| nanos % size == 0).unwrap_or(&("n", 1));
        if self.form == Form::Exponent && !suffix.is_empty() {
            let mut exponent = -9;
            let mut size = *size;
            while size >= 1000 {
                size /= 1000;
                exponent += 3;
            }
            return write!(f, "{sign}{}e{exponent}", nanos / 1000_i128.pow(((exponent + 9) / 3) as u32));
        }
        write!(f, "{sign}{}{suffix}", nanos / size)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, in the form of the first that is not zero.
    fn add(self, other: Self) -> Self {
        let form = if self.is_zero() { other.form } else { self.form };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), form }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, form: other.form }
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = match &value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(number) => number.to_string(),
            _ => return Err(serde::de::Error::custom(InvalidQuantity)),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|_| panic!("{text} is a quantity"))
    }

    #[test]
    fn canonical_form() {
        for (text, canonical) in [
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("2000", "2k"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("512", "512"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-1.5", "-1500m"),
            ("+3", "3"),
            ("1e3", "1e3"),
            ("1500e-3", "1500e-3"),
            ("0.5Ki", "512"),
            (".5", "500m"),
            ("5.", "5"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("100E", "9223372036854775807"),
            ("0.0001Ki", "102400u"),
        ] {
            assert_eq!(q(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn units() {
        assert_eq!((q("250m").milli(), q("2").milli(), q("1n").milli()), (250, 2000, 1));
        assert_eq!((q("1Gi").units(), q("1.1").units(), q("-1.1").units()), (1 << 30, 2, -2));
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("1e3") == q("1k"));
        assert_eq!((q("100m") + q("1")).to_string(), "1100m");
        assert_eq!((q("1Gi") - q("512Mi")).to_string(), "512Mi");
        assert_eq!((Quantity::ZERO + q("1Mi")).to_string(), "1Mi");
    }

    #[test]
    fn rubbish_is_refused() {
        for bad in
            ["", "-", ".", "1.2.3", "m", "1x", "1 Gi", "1e", "1e+", "1Kib", "١", "0x1", "1ei", "--1", "1e1.5"]
        {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,4}|.{0,8}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(q(&quantity.to_string()), quantity);
            }
        }

        #[test]
        fn milli_reads_back(milli in any::<i32>()) {
            let quantity = Quantity::from_milli(i64::from(milli));
            prop_assert_eq!(q(&quantity.to_string()).milli(), i64::from(milli));
        }

        #[test]
        fn bytes_read_back(bytes in any::<i64>().prop_filter("in range", |b| *b != i64::MIN)) {
            prop_assert_eq!(q(&Quantity::from_bytes(bytes).to_string()).units(), bytes);
        }
    }
}
