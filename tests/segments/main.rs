//! Arrays in shared memory and in files: names, permissions, shortage of memory, NumPy.
//!
//! Tests that fork workers are isolated: a worker inherits the locks of what other tests have made.

#[path = "../support/mod.rs"]
mod support;

// The life of a segment, and its names.
mod segments;
// What may be a name.
mod names;
// What other users cannot read.
mod permissions;
// Shortage of memory, and old kernels.
mod shortage;
// Files that are mapped where they lie.
mod mapped;
// NumPy and rowfork read and write the same files.
mod numpy;
