//! What is claimed under which number: the blocks, and the pieces that some of them were split
//! into. The supervisor's own table; the one in the control block is for the workers.

use std::ops::Range;

use crate::engine::blocks::RowBlocks;
use crate::engine::control::MAX_PIECES;

/// The rows of every unit.
#[derive(Debug)]
pub(super) struct Units {
    blocks: RowBlocks,
    pieces: Vec<Range<usize>>,
}

impl Units {
    /// Blocks, and no piece yet.
    pub(super) fn new(blocks: RowBlocks) -> Self {
        Self { blocks, pieces: Vec::new() }
    }

    /// The blocks.
    pub(super) fn blocks(&self) -> &RowBlocks {
        &self.blocks
    }

    /// How many units there are: the number of the next piece.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.pieces.len()
    }

    /// Whether so many more pieces find room.
    pub(super) fn has_room(&self, n: usize) -> bool {
        self.pieces.len() + n <= MAX_PIECES
    }

    /// A piece of a block; its number.
    pub(super) fn add(&mut self, rows: Range<usize>) -> usize {
        self.pieces.push(rows);
        self.len() - 1
    }

    /// No piece any more.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces.clear();
    }

    /// The rows of a unit; none past the last.
    pub(super) fn rows(&self, index: usize) -> Range<usize> {
        match index.checked_sub(self.blocks.len()) {
            None => self.blocks.get(index).map_or(0..0, |block| block.rows()),
            Some(piece) => self.pieces.get(piece).cloned().unwrap_or(0..0),
        }
    }
}
