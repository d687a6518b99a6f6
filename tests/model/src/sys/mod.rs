//! What stands in for the lowest floor of rowfork.

pub(crate) mod atomic;
pub(crate) mod shared;
