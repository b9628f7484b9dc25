//! Tables of calls and what becomes of them.

mod bookinfo;
mod compiled;
mod gateway;
mod routing;
mod scopes;
mod security;
mod telemetry;
