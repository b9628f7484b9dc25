//! Log output: one line an event to standard error, text for people or JSON for collectors.

use std::{fmt as std_fmt, sync::Arc};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

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
    /// Logging has ended.
    #[error("logging has ended")]
    Ended,
}

/// The filter in force, which may be changed while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Filter(Arc<reload::Handle<EnvFilter, Registry>>);

/// Starts logging with a filter such as `info` or `info,cluster_store=debug`.
///
/// # Errors
/// On a filter that does not parse, or when called twice.
pub fn init(filter: &str, format: Format) -> Result<Filter, LogError> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(layer);
    let result = match format {
        Format::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        Format::Json => {
            registry.with(fmt::layer().with_writer(std::io::stderr).json().flatten_event(true)).try_init()
        }
    };
    result.map(|()| Filter(Arc::new(handle))).map_err(|_| LogError::Twice)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|_| LogError::Filter { filter: filter.into() })
}

// === impl Filter ===

impl Filter {
    /// Changes what is logged from now on.
    ///
    /// # Errors
    /// On a filter that does not parse; the one in force stays.
    pub fn change(&self, filter: &str) -> Result<(), LogError> {
        self.0.reload(parse(filter)?).map_err(|_| LogError::Ended)
    }
}

impl std_fmt::Display for Filter {
    fn fmt(&self, f: &mut std_fmt::Formatter<'_>) -> std_fmt::Result {
        f.write_str(&self.0.with_current(ToString::to_string).unwrap_or_default())
    }
}

impl std_fmt::Debug for Filter {
    fn fmt(&self, f: &mut std_fmt::Formatter<'_>) -> std_fmt::Result {
        write!(f, "Filter({self})")
    }
}
