//! Tests of the files and threads behind the embedded store.
