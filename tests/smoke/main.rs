//! What `cargo t-fast` runs. A binary of its own, since it compiles in a tenth of the time of `it`.

#[path = "../support/mod.rs"]
mod support;

// Something of every subject in a few seconds.
mod smoke;
