//! What an operation sees of the control block while it works on a won block.

use std::ops::Deref;

use super::{Slot, digest};
use crate::engine::blocks::RowBlock;
use crate::sys::atomic::{AtomicU64, Ordering};

/// A worker's slot, to which it dereferences, and the rows to pass over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockContext<'a> {
    number: u16,
    slot: &'a Slot,
    skipped: &'a [AtomicU64],
}

impl<'a> BlockContext<'a> {
    pub(super) fn new(number: u16, slot: &'a Slot, skipped: &'a [AtomicU64]) -> Self {
        Self { number, slot, skipped }
    }

    /// For work that the caller does itself.
    pub(crate) fn of_caller(slot: &'a Slot) -> Self {
        Self::new(0, slot, &[])
    }

    /// The slot's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// What a unit is of which this has been done.
    pub(crate) fn digest(&self, unit: &RowBlock) -> u64 {
        let rows = unit.rows();
        let skipped =
            self.skipped.iter().filter_map(|row| usize::try_from(row.load(Ordering::Relaxed)).ok());
        digest(unit.index(), &rows, skipped.filter(|row| rows.contains(row)))
    }

    /// Whether the call goes on without this row. Nearly always there is none such.
    pub(crate) fn skips(&self, row: usize) -> bool {
        self.skipped.iter().any(|skipped| skipped.load(Ordering::Relaxed) == row as u64)
    }
}

impl Deref for BlockContext<'_> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.slot
    }
}
