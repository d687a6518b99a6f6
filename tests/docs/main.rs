//! What the documents promise: their programs run, and the sources keep to the architecture.

#[path = "../support/mod.rs"]
mod support;

// Every program of docs/NUMPY.md.
mod numpy_page;
// Every example.
mod examples;
// The imports that docs/ARCHITECTURE.md allows.
mod architecture;
