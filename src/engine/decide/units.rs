//! What is claimed under which number: the blocks, and the pieces that some of them were split
//! into.
//!
//! This is the supervisor's own table, in private memory. The one in the control block is a copy
//! for the workers, which a stray store may change.

use std::ops::Range;

use crate::engine::blocks::RowBlocks;
use crate::engine::control::MAX_PIECES;

/// The rows of every unit. Numbers only grow: a unit that was retired keeps its number and its
/// rows.
#[derive(Debug)]
pub(super) struct Units {
    /// Units `0..blocks.len()`: the cut that the call was made with.
    blocks: RowBlocks,
    /// The rows of the units from `blocks.len()` on. Never more than [`MAX_PIECES`].
    pieces: Vec<Range<usize>>,
}

impl Units {
    /// Blocks, and no piece yet.
    pub(super) fn new(blocks: RowBlocks) -> Self {
        Self { blocks, pieces: Vec::new() }
    }

    /// The blocks, as they were cut before the call.
    pub(super) fn blocks(&self) -> &RowBlocks {
        &self.blocks
    }

    /// How many units there are, retired ones included: the number of the next piece.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.pieces.len()
    }

    /// Whether `n` more pieces find room in the control block, whose table cannot grow while
    /// workers live. The caller asks before it adds any, so a unit is divided wholly or not at all.
    pub(super) fn has_room(&self, n: usize) -> bool {
        self.pieces.len() + n <= MAX_PIECES
    }

    /// Adds a piece of a block. Its number, which is the next one: the supervisor adds pieces to
    /// the control block in the same order.
    pub(super) fn add(&mut self, rows: Range<usize>) -> usize {
        self.pieces.push(rows);
        self.len() - 1
    }

    /// After a restart: no piece any more, and all blocks whole again. The numbers are given out
    /// anew.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces.clear();
    }

    /// The rows of a unit; an empty range past the last.
    pub(super) fn rows(&self, index: usize) -> Range<usize> {
        match index.checked_sub(self.blocks.len()) {
            None => self.blocks.get(index).map_or(0..0, |block| block.rows()),
            Some(piece) => self.pieces.get(piece).cloned().unwrap_or(0..0),
        }
    }
}
