//! The sidecar's own HTTP: a strict HTTP/1.1 codec, HTTP/2 by `h2`, one body type for both, and byte tunnels.
//!
//! Everything here is single-threaded on purpose: a connection, its request, and the upstream connection it is
//! passed to live on one worker, so state is shared by `Rc` and nothing locks. Idle connections hold no buffer.
//! The crate knows nothing of routing. Grammar: RFC 9110 and RFC 9112; limits: the project's reliability spec.

pub mod body;
pub mod buffer;
mod date;
pub mod drain;
mod duplex;
mod error;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod io;
pub mod limits;
mod names;
pub mod serve;
pub mod tunnel;

pub use body::{Body, BodyError, ByteCount, Layer};
pub use drain::{Drain, DrainWatch};
pub use error::{ParseError, SendError};
pub use io::{BoxIo, Io, Prefixed, Upgraded};
pub use limits::{Keepalive, Limits};
pub use serve::{Abort, Finish, Handler, Outcome, Reply, Served};
