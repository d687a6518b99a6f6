//! What stands in for the lowest layer of rowfork.

pub(crate) mod atomic;
pub(crate) mod shared;
