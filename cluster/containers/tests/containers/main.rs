//! The container runtime against the real kernel: needs root. Everything is named after the test process and removed at its end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod commands;
mod figures;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod support;
