#![doc = include_str!("README.md")]
//!
//! # Safety
//! The only unsafe here are the `unsafe impl AllAtomic`s: the types that lie in shared memory
//! consist of atomics alone, so a store by any other process, sane or not, at any time, is a value
//! and never undefined behaviour.
#![allow(unsafe_code, reason = "marks the types that may lie in shared memory")]

mod block_context;
mod claims;
mod slots;

pub(crate) use block_context::BlockContext;
pub(crate) use claims::{CallKey, Claim, ClaimState, Claims, MAX_WORKERS, Owner, digest};
pub(crate) use slots::{Fault, Message, MessageKind, Saved, Slot, Tally};

use std::ops::Range;

use crate::engine::blocks::{RowBlock, RowBlocks};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::shared::{AllAtomic, SharedPages};

/// The most pieces that the blocks of one call are split into.
pub(crate) const MAX_PIECES: usize = 8192;

/// The most rows that one call goes on without.
pub(crate) const MAX_FAILED_ROWS: usize = 1024;

/// The words at the start of the control block.
#[repr(C, align(64))]
#[derive(Debug, Default)]
struct ControlHeader {
    /// Hint: a unit that came back from a dead worker, or [`NONE`].
    returned: AtomicU64,
    /// Units that start at this row or later need not be done. Written by the supervisor only, as
    /// are the two below.
    limit: AtomicU64,
    /// How many pieces there are.
    n_pieces: AtomicU64,
    /// How many rows are to be passed over.
    n_skipped: AtomicU64,
}

/// The rows of a piece of a block.
#[repr(C)]
#[derive(Debug, Default)]
struct Piece {
    start: AtomicU64,
    end: AtomicU64,
}

// SAFETY: atomics only; the rest of its 64 bytes is padding that nobody reads.
unsafe impl AllAtomic for ControlHeader {}
// SAFETY: atomics only.
unsafe impl AllAtomic for Piece {}

const _: () = assert!(size_of::<ControlHeader>() <= Control::SLOTS_AT);

/// No unit.
const NONE: u64 = u64::MAX;

/// The control block of a call in anonymous shared memory: worker slots, and claim words for the
/// blocks and for pieces of them. Pieces and skipped rows take memory only when there are any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control<'p> {
    pages: &'p SharedPages,
    n_workers: usize,
    call: CallKey,
    n_blocks: usize,
}

impl<'p> Control<'p> {
    /// How many bytes the control block for so many blocks and workers takes.
    pub(crate) fn bytes(n_blocks: usize, n_workers: usize) -> usize {
        Self::words_at(n_workers) + (n_blocks + MAX_PIECES) * size_of::<AtomicU64>()
    }

    /// The slots come after the header, each on a page of its own.
    const SLOTS_AT: usize = align_of::<Slot>();

    fn pieces_at(n_workers: usize) -> usize {
        Self::SLOTS_AT + n_workers * size_of::<Slot>()
    }

    fn skipped_at(n_workers: usize) -> usize {
        Self::pieces_at(n_workers) + MAX_PIECES * size_of::<Piece>()
    }

    /// The claim words come last: where the rest lies does not depend on how many blocks a call
    /// has.
    fn words_at(n_workers: usize) -> usize {
        Self::skipped_at(n_workers) + MAX_FAILED_ROWS * size_of::<AtomicU64>()
    }

    /// The control block of a call in pages of [`Control::bytes`] bytes, as it is. In fresh pages,
    /// or after another call, it wants a [`reset`](Self::reset) before it is of use.
    pub(crate) fn in_pages(
        pages: &'p SharedPages,
        n_blocks: usize,
        n_workers: usize,
        call: CallKey,
    ) -> Self {
        assert!(n_workers <= MAX_WORKERS, "a claim word holds 16 bits of worker number");
        Self { pages, n_workers, call, n_blocks }
    }

    /// What its words are sealed with.
    pub(crate) fn call(&self) -> CallKey {
        self.call
    }

    /// Frees every block and forgets all else but the slots. Only while no worker is at this call.
    pub(crate) fn reset(&self) {
        let header = self.header();
        header.returned.store(NONE, Ordering::Relaxed);
        header.limit.store(u64::MAX, Ordering::Relaxed);
        header.n_pieces.store(0, Ordering::Relaxed);
        header.n_skipped.store(0, Ordering::Relaxed);
        self.claims(self.n_blocks).free_all();
    }

    /// Has the next worker that looks for a unit try this one first: it came back from a dead
    /// worker. Lowest first, so that a row that kills is tried again at once, and found out, before
    /// the workers go on to others.
    pub(crate) fn offer_first(&self, unit: usize) {
        self.header().returned.fetch_min(unit as u64, Ordering::Relaxed);
    }

    /// The unit that came back, for one who asks. May be any number.
    pub(crate) fn take_returned(&self) -> Option<usize> {
        let returned = &self.header().returned;
        // Nearly always there is none, and no need to write to a line that all workers read.
        if returned.load(Ordering::Relaxed) == NONE {
            return None;
        }
        usize::try_from(returned.swap(NONE, Ordering::Relaxed)).ok()
    }

    /// Units that start at this row or later need not be done.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.header().limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Tells the workers that units that start at `row` or later need not be done. The supervisor's
    /// word only.
    pub(crate) fn set_limit(&self, row: usize) {
        self.header().limit.store(row as u64, Ordering::Relaxed);
    }

    /// The claim words of the blocks and of the pieces that there are by now, as the shared memory
    /// has it.
    pub(crate) fn claims_now(&self) -> Claims<'p> {
        // Acquire: pairs with the Release in `add_piece`, so a piece that is counted has its rows.
        let n_pieces =
            usize::try_from(self.header().n_pieces.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        self.claims(self.n_blocks + n_pieces.min(MAX_PIECES))
    }

    /// The first `n_units` claim words: those of the blocks, then those of the pieces.
    pub(crate) fn claims(&self, n_units: usize) -> Claims<'p> {
        Claims::new(
            self.pages.slice_of::<AtomicU64>(Self::words_at(self.n_workers), n_units),
            self.call,
        )
    }

    /// The unit of this number, for a worker: a block of `blocks`, or a piece of one.
    pub(crate) fn unit(&self, blocks: &RowBlocks, index: usize) -> Option<RowBlock> {
        let Some(piece) = index.checked_sub(self.n_blocks) else { return blocks.get(index) };
        let piece = self.pieces().get(piece)?;
        let [start, end] =
            [&piece.start, &piece.end].map(|row| usize::try_from(row.load(Ordering::Relaxed)).ok());
        blocks.piece(index, start?..end?)
    }

    /// In a worker: wins a unit: one that came back from a dead worker, else the block after the
    /// last, else wherever there is most to do, else a piece of a block. `None` when nothing is
    /// free. `next` is the worker's own, `usize::MAX` at first.
    ///
    /// So every worker goes through a stretch of memory of its own from start to end: the
    /// processor's prefetch likes that, and a huge page is mapped by one worker, where blocks dealt
    /// out in turn would have every worker map every page.
    pub(crate) fn next_claim(
        &self,
        blocks: &RowBlocks,
        owner: Owner,
        next: &mut usize,
    ) -> Option<Claim<'p>> {
        let claims = self.claims_now();
        let limit = self.limit();
        let claim = |index: usize| {
            let unit = self.unit(blocks, index).filter(|_| index < claims.len())?;
            if unit.rows().start < limit { claims.try_claim(unit, owner) } else { None }
        };
        if let Some(won) = self.take_returned().and_then(claim) {
            return Some(won);
        }
        let n_blocks = blocks.starting_before(limit);
        loop {
            if *next < n_blocks
                && let Some(won) = claim(*next)
            {
                *next += 1;
                return Some(won);
            }
            match claims.longest_free_run(n_blocks) {
                Some(start) => *next = start,
                None => return (blocks.len()..claims.len()).find_map(claim),
            }
        }
    }

    /// Gives piece number `index - n_blocks` its rows and its first state. Pieces are added in
    /// order.
    pub(crate) fn add_piece(
        &self,
        index: usize,
        rows: &Range<usize>,
        state: ClaimState,
        digest: u64,
    ) {
        let piece = &self.pieces()[index - self.n_blocks];
        piece.start.store(rows.start as u64, Ordering::Relaxed);
        piece.end.store(rows.end as u64, Ordering::Relaxed);
        self.claims(index + 1).settle(index, state, digest);
        self.header().n_pieces.store((index + 1 - self.n_blocks) as u64, Ordering::Release);
    }

    /// Has workers pass over a row from now on, where an operation cannot be cut around it: the
    /// `nth`, counted from 0.
    pub(crate) fn skip(&self, nth: usize, row: usize) {
        if let Some(entry) = self.all_skipped().get(nth) {
            entry.store(row as u64, Ordering::Relaxed);
            self.header().n_skipped.store(nth as u64 + 1, Ordering::Release);
        }
    }

    /// Says again what a stray store may have changed, before workers are forked: the limit, the
    /// rows of the pieces, and how many rows are passed over.
    pub(crate) fn rewrite_hints(
        &self,
        limit: usize,
        pieces: impl Iterator<Item = Range<usize>>,
        n_skipped: usize,
    ) {
        let header = self.header();
        header.limit.store(limit as u64, Ordering::Relaxed);
        header.n_skipped.store(n_skipped as u64, Ordering::Relaxed);
        let mut n_pieces = 0;
        for (piece, rows) in self.pieces().iter().zip(pieces) {
            piece.start.store(rows.start as u64, Ordering::Relaxed);
            piece.end.store(rows.end as u64, Ordering::Relaxed);
            n_pieces += 1;
        }
        header.n_pieces.store(n_pieces, Ordering::Release);
    }

    /// Whether nothing is left to do, as far as the shared memory tells. A hint: the supervisor
    /// looks for itself.
    pub(crate) fn is_over(&self, blocks: &RowBlocks) -> bool {
        let (claims, limit) = (self.claims_now(), self.limit());
        let is_wanted =
            |unit| self.unit(blocks, unit).is_some_and(|unit| unit.rows().start < limit);
        (0..claims.len()).all(|unit| claims.is_ended(unit) || !is_wanted(unit))
    }

    /// Rows to pass over.
    fn skipped(&self) -> &'p [AtomicU64] {
        let n_skipped =
            usize::try_from(self.header().n_skipped.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        &self.all_skipped()[..n_skipped.min(MAX_FAILED_ROWS)]
    }

    fn all_skipped(&self) -> &'p [AtomicU64] {
        self.pages.slice_of::<AtomicU64>(Self::skipped_at(self.n_workers), MAX_FAILED_ROWS)
    }

    /// The slots, one per worker.
    pub(crate) fn slots(&self) -> &'p [Slot] {
        self.pages.slice_of::<Slot>(Self::SLOTS_AT, self.n_workers)
    }

    /// What a block of rows is run with in the worker of `slot`.
    pub(crate) fn block_context(&self, slot: u16) -> BlockContext<'p> {
        BlockContext::new(slot, &self.slots()[usize::from(slot)], self.skipped())
    }

    fn pieces(&self) -> &'p [Piece] {
        self.pages.slice_of::<Piece>(Self::pieces_at(self.n_workers), MAX_PIECES)
    }

    fn header(&self) -> &'p ControlHeader {
        &self.pages.slice_of::<ControlHeader>(0, 1)[0]
    }
}
