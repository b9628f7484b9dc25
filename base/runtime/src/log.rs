//! Log output: one line an event to standard error, text for people or JSON for collectors.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `2026-01-02T03:04:05.678Z  INFO target: Message field=value`
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not of the form `info,target=debug`.
    #[error("`{filter}` is not a log filter such as `info` or `info,cluster_kubelet=debug`")]
    Filter {
        /// What was given.
        filter: String,
    },
    /// Logging was started before.
    #[error("logging has started already")]
    Twice,
}

/// Starts logging with a filter such as `info` or `info,cluster_store=debug`.
///
/// # Errors
/// On a filter that does not parse, or when called twice.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let parsed = EnvFilter::try_new(filter).map_err(|_| LogError::Filter { filter: filter.into() })?;
    let registry = tracing_subscriber::registry().with(parsed);
    let result = match format {
        Format::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        Format::Json => {
            registry.with(fmt::layer().with_writer(std::io::stderr).json().flatten_event(true)).try_init()
        }
    };
    result.map_err(|_| LogError::Twice)
}
