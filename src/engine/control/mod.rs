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
pub(crate) use slots::{Fault, Message, MessageKind, Saved, Slot, SumOverflow, Tally};

use std::ops::Range;

use crate::engine::blocks::{RowBlock, RowBlocks};
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::shared::{AllAtomic, SharedPages};

/// The most pieces that the blocks of one call are split into. Every dead worker adds a few, and a
/// call needs a bound: their table has to be mapped before the fork. When it is full, units come
/// back whole.
pub(crate) const MAX_PIECES: usize = 8192;

/// The most rows that one call goes on without. A call with more of them fails, since then the
/// kernel rather than the rows is at fault.
pub(crate) const MAX_FAILED_ROWS: usize = 1024;

/// The words at the start of the control block: hints, which no answer depends on alone.
#[repr(C, align(64))]
#[derive(Debug, Default)]
struct ControlHeader {
    /// A unit that came back from a dead worker, or [`NONE`]. Written by the supervisor and by any
    /// worker.
    returned: AtomicU64,
    /// A row: units that start there or later need not be done. `u64::MAX` while no row has failed.
    /// Written by the supervisor only, as are the two below.
    limit: AtomicU64,
    /// How many pieces there are. Counted after their rows and words are stored.
    n_pieces: AtomicU64,
    /// How many rows are to be passed over. Counted after their entries are stored.
    n_skipped: AtomicU64,
}

/// The rows of a piece of a block, half-open. Two words that are loaded one after the other, so a
/// worker checks that they are some rows of one block.
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

/// No unit. Past every number that a unit can have.
const NONE: u64 = u64::MAX;

/// The control block of a call in anonymous shared memory. From its start on:
///
/// 1. the header, on the first page;
/// 2. the worker slots, a page each;
/// 3. the rows of [`MAX_PIECES`] pieces;
/// 4. [`MAX_FAILED_ROWS`] rows to pass over;
/// 5. the claim words of the blocks, then those of the pieces.
///
/// Linux gives a page of anonymous memory only when it is touched, so pieces and skipped rows take
/// memory only when there are any. This type is a view and is copied freely: the caller and its
/// workers each have their own, made from the same numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control<'p> {
    pages: &'p SharedPages,
    /// How many slots there are. Decides where everything after them lies, so all processes must
    /// agree on it: in a pool it is the number of the pool's slots, not that of the call's workers.
    n_workers: usize,
    /// The key of the call that this view is for. A late worker has a view with an older key.
    call: CallKey,
    /// How many blocks this call has. The numbers of pieces begin there.
    n_blocks: usize,
}

impl<'p> Control<'p> {
    /// How many bytes the control block for so many blocks and workers takes: about a page per
    /// worker, 136 KiB for pieces and skipped rows, and 8 bytes per unit.
    pub(crate) fn bytes(n_blocks: usize, n_workers: usize) -> usize {
        Self::words_at(n_workers) + (n_blocks + MAX_PIECES) * size_of::<AtomicU64>()
    }

    /// The slots come after the header, each on a page of its own. Hence the header has the first
    /// page for itself.
    const SLOTS_AT: usize = align_of::<Slot>();

    /// The table of pieces comes after the last slot.
    fn pieces_at(n_workers: usize) -> usize {
        Self::SLOTS_AT + n_workers * size_of::<Slot>()
    }

    /// The list of skipped rows comes after the table of pieces, which has its full size from the
    /// start.
    fn skipped_at(n_workers: usize) -> usize {
        Self::pieces_at(n_workers) + MAX_PIECES * size_of::<Piece>()
    }

    /// The claim words come last: where the rest lies does not depend on how many blocks a call
    /// has, so a pool serves calls of every size in the same pages.
    fn words_at(n_workers: usize) -> usize {
        Self::skipped_at(n_workers) + MAX_FAILED_ROWS * size_of::<AtomicU64>()
    }

    /// The control block of a call in pages of [`Control::bytes`] bytes, as it is. In fresh pages,
    /// or after another call, the caller must [`reset`](Self::reset) it before a worker uses it. A
    /// pool's worker makes its own view for each job, and resets nothing.
    ///
    /// # Panics
    /// For more than [`MAX_WORKERS`] workers.
    pub(crate) fn in_pages(
        pages: &'p SharedPages,
        n_blocks: usize,
        n_workers: usize,
        call: CallKey,
    ) -> Self {
        assert!(n_workers <= MAX_WORKERS, "a claim word holds 16 bits of worker number");
        Self { pages, n_workers, call, n_blocks }
    }

    /// The key that its words are sealed with.
    pub(crate) fn call(&self) -> CallKey {
        self.call
    }

    /// In the caller: frees every block and forgets everything else except the slots. Only while no
    /// worker works on this call.
    ///
    /// The words of pieces are left as they are: a piece is not counted before
    /// [`add_piece`](Self::add_piece) has settled its word anew. Relaxed stores are enough, because
    /// the fork, or the Release by which a pool announces a job, comes after them.
    pub(crate) fn reset(&self) {
        let header = self.header();
        header.returned.store(NONE, Ordering::Relaxed);
        header.limit.store(u64::MAX, Ordering::Relaxed);
        header.n_pieces.store(0, Ordering::Relaxed);
        header.n_skipped.store(0, Ordering::Relaxed);
        self.claims(self.n_blocks).free_all();
    }

    /// In the supervisor: asks the next worker that looks for a unit to try this one first, because
    /// it came back from a dead worker.
    ///
    /// The lowest offer wins, so that a poisoned row is tried again at once, and found, before the
    /// workers go on to other units. A unit whose offer is lost is still free, and is found by its
    /// word. Relaxed: nothing is read on the strength of the hint; the claim itself orders what
    /// must be ordered.
    pub(crate) fn offer_first(&self, unit: usize) {
        self.header().returned.fetch_min(unit as u64, Ordering::Relaxed);
    }

    /// In a worker: the unit that came back, for the first worker that asks. A stray store may have
    /// left any number there, so the caller checks it.
    pub(crate) fn take_returned(&self) -> Option<usize> {
        let returned = &self.header().returned;
        // Nearly always there is none. A swap would then write for nothing to a line that all
        // workers read, and take it away from them.
        if returned.load(Ordering::Relaxed) == NONE {
            return None;
        }
        usize::try_from(returned.swap(NONE, Ordering::Relaxed)).ok()
    }

    /// Units that start at this row or later need not be done; `usize::MAX` while all are wanted.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.header().limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// In the supervisor: tells the workers that units that start at `row` or later need not be
    /// done. A worker that has not heard of it yet does a unit for nothing.
    pub(crate) fn set_limit(&self, row: usize) {
        self.header().limit.store(row as u64, Ordering::Relaxed);
    }

    /// The claim words of the blocks, and of the pieces that there are by now according to the
    /// shared memory. Workers go by this. The supervisor counts in private memory instead, and
    /// calls [`claims`](Self::claims).
    pub(crate) fn claims_now(&self) -> Claims<'p> {
        // Acquire: pairs with the Release in `add_piece`, so a piece that is counted has its rows
        // and its word. The `min` below keeps a count that a stray store left within the mapping.
        let n_pieces =
            usize::try_from(self.header().n_pieces.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        self.claims(self.n_blocks + n_pieces.min(MAX_PIECES))
    }

    /// The first `n_units` claim words: those of the blocks, then those of the pieces.
    ///
    /// # Panics
    /// For more units than the pages have words for.
    pub(crate) fn claims(&self, n_units: usize) -> Claims<'p> {
        Claims::new(
            self.pages.slice_of::<AtomicU64>(Self::words_at(self.n_workers), n_units),
            self.call,
        )
    }

    /// The unit of this number as the shared memory has it: a block of `blocks` or a piece of one.
    /// `None` when there is none, or when the shared memory does not hold some rows of one block
    /// for it.
    ///
    /// The rows are read before the unit is claimed. They are still right once it is: pieces are
    /// never changed while their call runs, and in the next call the free word is another one, so
    /// the claim fails.
    pub(crate) fn unit(&self, blocks: &RowBlocks, index: usize) -> Option<RowBlock> {
        let Some(piece) = index.checked_sub(self.n_blocks) else { return blocks.get(index) };
        let piece = self.pieces().get(piece)?;
        let [start, end] =
            [&piece.start, &piece.end].map(|row| usize::try_from(row.load(Ordering::Relaxed)).ok());
        blocks.piece(index, start?..end?)
    }

    /// In a worker: wins a unit. It tries, in this order, the unit that came back from a dead
    /// worker, the block after its last, the blocks where most is left to do, and the pieces.
    /// `None` when nothing is free. `next` is the worker's own, `usize::MAX` at first.
    ///
    /// So every worker goes through a stretch of memory of its own from start to end. The
    /// processor's prefetch likes that, and a huge page is mapped by one worker; blocks that were
    /// dealt out in turn would have every worker map every page.
    ///
    /// Every round of the loop but the first starts at a block that was free a moment ago. It fails
    /// only if another process has changed that block's word since, so some process makes progress.
    pub(crate) fn next_claim(
        &self,
        blocks: &RowBlocks,
        owner: Owner,
        next: &mut usize,
    ) -> Option<Claim<'p>> {
        let claims = self.claims_now();
        let limit = self.limit();
        // A unit beyond the words that were counted is one that has been added since, or is no
        // unit. Neither can be claimed through this view. If the hint is lost by that, the unit is
        // found by its word.
        let claim = |index: usize| {
            let unit = self.unit(blocks, index).filter(|_| index < claims.len())?;
            if unit.rows().start < limit { claims.try_claim(unit, owner) } else { None }
        };
        // First of all, so that a poisoned row dies in a short time as often as it must to be
        // found.
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

    /// In the supervisor: gives piece number `index - n_blocks` its rows and its first state, and
    /// counts it. Pieces are added in order, and only when the unit that they are parts of is
    /// retired.
    ///
    /// # Panics
    /// From [`MAX_PIECES`] pieces on; the supervisor's own table has no room for more either.
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
        // Release: pairs with the Acquire in `claims_now`. The count comes last, so no worker reads
        // the rows of the piece that an earlier call had under this number.
        self.header().n_pieces.store((index + 1 - self.n_blocks) as u64, Ordering::Release);
    }

    /// In the supervisor: asks workers to pass over a row from now on, where an operation cannot be
    /// cut around it. It is the `nth` such row, counted from 0. Past [`MAX_FAILED_ROWS`] nothing is
    /// stored, since the call is about to fail.
    pub(crate) fn skip(&self, nth: usize, row: usize) {
        if let Some(entry) = self.all_skipped().get(nth) {
            entry.store(row as u64, Ordering::Relaxed);
            // Release: pairs with the Acquire in `skipped`, so a counted entry is there.
            self.header().n_skipped.store(nth as u64 + 1, Ordering::Release);
        }
    }

    /// In the supervisor, before it adds workers: writes again what a stray store may have changed,
    /// that is the limit, the rows of the pieces, and how many pieces and skipped rows there are.
    ///
    /// Without this a stray store could make every new worker find nothing to do and leave, and the
    /// call would end in an error about workers that keep dying. Live workers may read meanwhile:
    /// if no stray store has come, they read the values that were there before.
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
        // Release: as in `add_piece`.
        header.n_pieces.store(n_pieces, Ordering::Release);
    }

    /// Whether nothing is left to do, as far as the shared memory tells. A hint, by which a pool's
    /// worker decides to wake the caller and the caller decides not to sleep: the supervisor then
    /// looks for itself. True with corrupt words, too, so that the supervisor gets to see them.
    pub(crate) fn is_over(&self, blocks: &RowBlocks) -> bool {
        let (claims, limit) = (self.claims_now(), self.limit());
        let is_wanted =
            |unit| self.unit(blocks, unit).is_some_and(|unit| unit.rows().start < limit);
        (0..claims.len()).all(|unit| claims.is_ended(unit) || !is_wanted(unit))
    }

    /// The rows to pass over that are counted by now.
    fn skipped(&self) -> &'p [AtomicU64] {
        // Acquire: pairs with the Release in `skip`.
        let n_skipped =
            usize::try_from(self.header().n_skipped.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        &self.all_skipped()[..n_skipped.min(MAX_FAILED_ROWS)]
    }

    /// All entries for rows to pass over, counted or not.
    fn all_skipped(&self) -> &'p [AtomicU64] {
        self.pages.slice_of::<AtomicU64>(Self::skipped_at(self.n_workers), MAX_FAILED_ROWS)
    }

    /// The slots, one per worker. A worker writes to its own; the supervisor reads all.
    pub(crate) fn slots(&self) -> &'p [Slot] {
        self.pages.slice_of::<Slot>(Self::SLOTS_AT, self.n_workers)
    }

    /// In a worker: what the worker of `slot` runs a block of rows with. Made anew for each unit,
    /// after it is won, so that it has the rows to pass over as they are then.
    pub(crate) fn block_context(&self, slot: u16) -> BlockContext<'p> {
        BlockContext::new(slot, &self.slots()[usize::from(slot)], self.skipped())
    }

    /// The whole table of pieces, counted or not.
    fn pieces(&self) -> &'p [Piece] {
        self.pages.slice_of::<Piece>(Self::pieces_at(self.n_workers), MAX_PIECES)
    }

    /// The words at the start.
    fn header(&self) -> &'p ControlHeader {
        &self.pages.slice_of::<ControlHeader>(0, 1)[0]
    }
}
