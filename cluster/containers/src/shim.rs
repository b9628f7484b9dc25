//! The helper process: one small single-threaded parent for each container, and short-lived ones for exec and sandboxes.

/// Runs a helper to its end. Call it first thing in `main`, before any thread exists, with the arguments after `shim_args`.
pub fn shim_main(_args: Vec<String>) -> ! {
    std::process::exit(2)
}
