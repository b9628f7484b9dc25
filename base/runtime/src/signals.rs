//! SIGTERM and SIGINT ask for an orderly end; a second one ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The status a shell reports for a process that an interrupt ended.
const EXIT_INTERRUPTED: i32 = 130;

/// A token that is cancelled at the first SIGTERM or SIGINT. At the second the process exits with status 130.
///
/// # Errors
/// When the handlers cannot be installed. Must be called within a tokio runtime.
pub fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "Shutting down");
            if first {
                cancelled.cancel();
            } else {
                std::process::exit(EXIT_INTERRUPTED);
            }
        }
    });
    Ok(token)
}
