//! Thresholds of a probe: how many results in a row turn the verdict. Pure.

/// How many equal results in a row make a verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    pub(crate) success: u32,
    pub(crate) failure: u32,
}

/// The run of equal results so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    last: Option<bool>,
    run: u32,
}

// === impl Tally ===

impl Tally {
    /// Counts one result; the verdict, once enough equal results came in a row.
    pub(crate) fn record(&mut self, success: bool, thresholds: Thresholds) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let needed = if success { thresholds.success } else { thresholds.failure };
        (self.run >= needed.max(1)).then_some(success)
    }

    /// Whether a result has been counted at all.
    pub(crate) fn has_begun(&self) -> bool {
        self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_a_run() {
        let thresholds = Thresholds { success: 2, failure: 3 };
        let mut tally = Tally::default();
        let verdicts: Vec<_> = [true, true, false, false, true, false, false, false, false, true, true]
            .into_iter()
            .map(|success| tally.record(success, thresholds))
            .collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, yes, None, None, None, None, None, no, no, None, yes]);
    }
}
