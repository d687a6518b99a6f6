//! The files of rowfork's engine that are tried, where they stand there.

#[path = "../../../src/engine/blocks.rs"]
pub(crate) mod blocks;
#[expect(unused_imports, reason = "no model asks for all that rowfork has in these files")]
#[path = "../../../src/engine/control/mod.rs"]
pub(crate) mod control;
