//! The container runtime against the real kernel: needs root. Everything is named after the test process and removed at its end.

mod commands;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod support;
