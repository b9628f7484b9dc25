//! One module a verb.

pub mod apply;
pub mod canary;
pub mod delete;
pub mod describe;
pub mod fault;
pub mod get;
pub mod image;
pub mod life;
pub mod proxy;
pub mod stat;
pub mod status;
pub mod tap;
pub mod version;
