//! Prometheus' text format, as far as our own sidecars write it.

use std::collections::BTreeMap;

/// One line of an exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the series.
    pub name: String,
    labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty when it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// Reads an exposition; lines that are none of ours are passed over.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(Sample {
            name: name.into(),
            labels: Vec::new(),
            value: value.split(' ').next()?.parse().ok()?,
        });
    };
    let (labels, rest) = labels(rest)?;
    Some(Sample { name: name.into(), labels, value: rest.split_whitespace().next()?.parse().ok()? })
}

/// Labels up to the closing brace, and what follows it. Values may hold escaped quotes, braces and commas.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        found.push((key.to_owned(), value));
        rest = &after[end + 1..];
    }
}

/// A cumulative histogram summed over series.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Count of observations at or below a bound, by the bound's bits (all bounds are positive, so bits sort as numbers do).
    buckets: BTreeMap<u64, f64>,
}

impl Histogram {
    /// What came in between two scrapes.
    pub fn difference<'a>(
        before: impl Iterator<Item = &'a Sample>,
        after: impl Iterator<Item = &'a Sample>,
    ) -> Self {
        let mut this = Self::default();
        for (samples, sign) in
            [(Box::new(before) as Box<dyn Iterator<Item = &Sample>>, -1.0), (Box::new(after), 1.0)]
        {
            for sample in samples {
                let bound = match sample.label("le") {
                    "+Inf" => f64::INFINITY,
                    text => text.parse().unwrap_or(f64::INFINITY),
                };
                *this.buckets.entry(bound.to_bits()).or_default() += sign * sample.value;
            }
        }
        this
    }

    /// The quantile, with linear interpolation inside its bucket as `histogram_quantile` does; 0 when there was nothing.
    pub fn quantile(&self, q: f64) -> f64 {
        let total = self.buckets.values().next_back().copied().unwrap_or(0.0);
        if total <= 0.0 {
            return 0.0;
        }
        let rank = q * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (bits, count) in &self.buckets {
            let bound = f64::from_bits(*bits);
            if *count >= rank {
                return if bound.is_infinite() {
                    low
                } else {
                    low + (bound - low) * ((rank - below) / (count - below).max(f64::MIN_POSITIVE))
                };
            }
            (low, below) = (bound, *count);
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_with_odd_labels() {
        let samples = parse("# HELP a b\na_total{x=\"1\",y=\"q\\\"}, z\"} 4 1700000\nup 1\nbad\n");
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].label("y"), samples[0].value), ("q\"}, z", 4.0));
    }

    #[test]
    fn quantiles_lie_inside_their_bucket() {
        let text = "h_bucket{le=\"1\"} 50\nh_bucket{le=\"5\"} 90\nh_bucket{le=\"+Inf\"} 100\n";
        let after = parse(text);
        let histogram = Histogram::difference([].iter(), after.iter());
        assert!((histogram.quantile(0.5) - 1.0).abs() < 1e-9);
        assert!((histogram.quantile(0.7) - 3.0).abs() < 1e-9);
        assert!((histogram.quantile(0.99) - 5.0).abs() < 1e-9);
        assert!(Histogram::difference(after.iter(), after.iter()).quantile(0.5).abs() < 1e-9);
    }
}
