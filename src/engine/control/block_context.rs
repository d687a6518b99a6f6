//! What an operation sees of the control block while it works on a won block: the slot of its
//! worker, and the rows to pass over.
//!
//! `Control::block_context` makes one for each won block, and the operations in `src/rows/` get it
//! with the claim. An operation may write to the slot. It must not touch the claim words: the claim
//! that it holds beside the context is the only way to those.

use std::ops::Deref;

use super::{Slot, digest};
use crate::engine::blocks::RowBlock;
use crate::sys::atomic::{AtomicU64, Ordering};

/// A worker's slot, to which it dereferences, and the rows to pass over.
///
/// It borrows from the control block, so it is a few words and is copied freely.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockContext<'a> {
    /// The number of the slot, which is also the number of the worker's room in the undo buffer.
    number: u16,
    slot: &'a Slot,
    /// The entries that were counted when the unit was won. An entry that the supervisor adds later
    /// is not seen; it names a row of a unit whose worker has died, so never a row of this one.
    skipped: &'a [AtomicU64],
}

impl<'a> BlockContext<'a> {
    /// In a worker, through `Control::block_context`.
    pub(super) fn new(number: u16, slot: &'a Slot, skipped: &'a [AtomicU64]) -> Self {
        Self { number, slot, skipped }
    }

    /// For work that the caller does itself, without workers: slot number 0, and no row to pass
    /// over.
    pub(crate) fn of_caller(slot: &'a Slot) -> Self {
        Self::new(0, slot, &[])
    }

    /// The slot's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// The digest of `unit` as this worker has run it, for
    /// [`Claim::publish`](super::Claim::publish).
    ///
    /// Only skipped rows within the unit count. A row that is skipped elsewhere meanwhile therefore
    /// changes nothing, and the supervisor, which computes the same from its private list, finds
    /// the same digest.
    pub(crate) fn digest(&self, unit: &RowBlock) -> u64 {
        let rows = unit.rows();
        // Relaxed: the Acquire of the count, in `Control::skipped`, has ordered the entries.
        let skipped =
            self.skipped.iter().filter_map(|row| usize::try_from(row.load(Ordering::Relaxed)).ok());
        digest(unit.index(), &rows, skipped.filter(|row| rows.contains(row)))
    }

    /// Whether the call goes on without this row. The operation asks once a row; nearly always the
    /// list is empty, and the question costs a comparison.
    pub(crate) fn skips(&self, row: usize) -> bool {
        !self.skipped.is_empty() && self.lists(row)
    }

    /// Not inlined, so that the search is not compiled again for every kernel.
    #[cold]
    #[inline(never)]
    fn lists(&self, row: usize) -> bool {
        self.skipped.iter().any(|skipped| skipped.load(Ordering::Relaxed) == row as u64)
    }
}

impl Deref for BlockContext<'_> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.slot
    }
}
