//! The sidecar among strangers: attackers, foreign clients, foreign servers. One module a subject.

mod floods;
mod h2spec;
mod smuggling;

/// The sidecar under test.
const SIDECAR: &str = env!("CARGO_BIN_EXE_sidecar-under-test");
