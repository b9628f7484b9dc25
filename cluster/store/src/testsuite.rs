//! What every [`Store`] must do, as one function to run against an implementation.
