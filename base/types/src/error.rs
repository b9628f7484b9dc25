//! Printing an error with all its causes, for the one place that handles it.

use std::{error::Error, fmt};

/// Displays an error followed by its sources, outermost first, joined by `: `.
///
/// Our error types print only their own level; this is what logs and users see.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // A transparent wrapper prints what its source prints; say it once.
            if text != last {
                write!(f, ": {text}")?;
                last = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the file")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("no such file")]
        struct Inner;
        assert_eq!(ErrorChain(&Outer(Inner)).to_string(), "cannot read the file: no such file");
    }
}
