//! Counters and histograms with one writer: a load and a store instead of a locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one worker writes and a scrape reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. Only the owning worker calls this.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// The total.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of Envoy's default buckets, here in thousandths so that half a millisecond is a whole number.
pub const BOUNDS_THOUSANDTHS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// The same bounds as they are written.
pub const BOUND_LABELS: [&str; 19] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
    "60000", "300000", "600000", "1800000", "3600000",
];

/// A histogram over Envoy's default buckets; values are thousandths of the unit.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; 20],
    sum: Counter,
}

/// A histogram's values at one moment.
#[derive(Debug, Default, Clone)]
pub struct HistogramValues {
    /// Values in each bucket, not cumulative; the last has no upper bound.
    pub buckets: [u64; 20],
    /// Sum of all values, in thousandths.
    pub sum: u64,
}

impl Histogram {
    /// Adds a value given in thousandths of the unit.
    pub fn record(&self, thousandths: u64) {
        let bucket = BOUNDS_THOUSANDTHS.iter().position(|bound| thousandths <= *bound).unwrap_or(19);
        self.buckets[bucket].add(1);
        self.sum.add(thousandths);
    }

    /// Adds the values to `total`.
    pub fn add_to(&self, total: &mut HistogramValues) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.total();
        }
        total.sum += self.sum.total();
    }
}
