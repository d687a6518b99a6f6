//! [`RowBlocks`]: the cut of an array's rows into blocks, the unit of claiming, of re-running and
//! of progress.
//!
//! The cut follows from the shape, the operation and the caller's `block_rows`, so it is the same
//! for every number of workers and every crash. `rows/run.rs` makes it once per call, and a pool's
//! worker makes the same one again from two numbers. It knows nothing of processes, and must not
//! depend on the number of workers.

use std::ops::Range;

/// The most blocks that one call is cut into. Their claim words take 32 KiB, and a pool maps as
/// many when it is made.
pub(crate) const MAX_BLOCKS: usize = 4096;

/// Up to this many rows of unknown cost, every row is a block of its own: few rows are often slow
/// rows, and each should find a worker. A claim costs some 50 ns.
const SINGLE_ROWS_UP_TO: usize = 1024;

/// Below this many rows no block is rounded up to whole cache lines of output.
const ALIGNED_FROM: usize = 64;

/// Memory-bound rows are cut into this many blocks, if a block then has between
/// [`LEAST_BLOCK_BYTES`] and [`MOST_BLOCK_BYTES`]. It is enough for balance among many workers.
const MEMORY_BOUND_BLOCKS: usize = 256;

/// The least bytes of a memory-bound block: the time of a claim vanishes beside the reading of this
/// much.
const LEAST_BLOCK_BYTES: usize = 64 << 10;

/// The most bytes of a memory-bound block. Long runs are read faster than short ones, up to about
/// here: the processor's prefetch starts anew with every block, and each huge page is best mapped
/// by one worker alone. (1 GiB, 2 workers: 26.3 ms with blocks of 256 KiB, 23.3 ms with 4 MiB.)
const MOST_BLOCK_BYTES: usize = 4 << 20;

/// How many bytes a guarded worker gathers before it writes them out: few enough that they stay in
/// the processor's cache on the way. Where rows are cut for balance, they are also enough that the
/// system call for the writing costs little.
const MOST_GUARDED_BYTES: usize = 256 << 10;
const LEAST_GUARDED_BYTES: usize = 1 << 10;

/// Where rows are cut for balance, a guard leaves at least this many blocks, however small they
/// are.
const BALANCED_BLOCKS_MIN: usize = 1024;

/// Outputs of many rows are cut at multiples of this, so that no two workers write to one cache
/// line. The size of a cache line on x86-64 and most other processors.
const CACHE_LINE_BYTES: usize = 64;

/// The most groups that a fold is cut into. It needs an accumulator for each.
const MAX_FOLD_GROUPS: usize = 64;

/// How an operation wants its rows cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Rows of unknown cost. Each has `output_row_bytes` bytes of output.
    Balanced { output_row_bytes: usize },
    /// Rows that take the time of reading and writing them.
    MemoryBound { input_row_bytes: usize, output_row_bytes: usize },
    /// These blocks, whatever the options say: the result depends on the cut.
    Fixed(RowBlocks),
}

impl Cut {
    /// The blocks for `n_rows` rows. `block_rows` is the number of rows per block that the caller
    /// has asked for, if any.
    pub(crate) fn blocks(&self, n_rows: usize, block_rows: Option<usize>) -> RowBlocks {
        match (self, block_rows) {
            (Self::Fixed(blocks), _) => blocks.clone(),
            (_, Some(block_rows)) => RowBlocks::with_block_rows(n_rows, block_rows),
            (&Self::Balanced { output_row_bytes }, None) => {
                RowBlocks::balanced(n_rows, output_row_bytes)
            }
            (&Self::MemoryBound { input_row_bytes, output_row_bytes }, None) => {
                RowBlocks::memory_bound(n_rows, input_row_bytes, output_row_bytes)
            }
        }
    }
}

impl Cut {
    /// The blocks for a guarded call, in which a worker gathers the output of a block and writes it
    /// out at once. Smaller blocks keep the buffer small; too small ones would cost too many
    /// writes.
    pub(crate) fn guarded_blocks(&self, n_rows: usize, block_rows: Option<usize>) -> RowBlocks {
        match *self {
            _ if block_rows.is_some() => self.blocks(n_rows, block_rows),
            Self::Balanced { output_row_bytes } if n_rows > SINGLE_ROWS_UP_TO => {
                let n_blocks = n_rows.saturating_mul(output_row_bytes) / LEAST_GUARDED_BYTES;
                RowBlocks::aligned(
                    n_rows,
                    n_blocks.clamp(BALANCED_BLOCKS_MIN, MAX_BLOCKS),
                    output_row_bytes,
                )
            }
            Self::MemoryBound { output_row_bytes, .. } => {
                let n_blocks = n_rows.saturating_mul(output_row_bytes).div_ceil(MOST_GUARDED_BYTES);
                let n_blocks = n_blocks.max(self.blocks(n_rows, None).len());
                RowBlocks::aligned(n_rows, n_blocks.clamp(1, MAX_BLOCKS), output_row_bytes)
            }
            _ => self.blocks(n_rows, None),
        }
    }
}

/// The cut of `n_rows` rows into blocks of `block_rows`; the last block may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowBlocks {
    n_rows: usize,
    block_rows: usize,
}

/// One block of a [`RowBlocks`], or a piece of one. Only a `RowBlocks` makes it, so its rows are
/// some rows of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowBlock {
    index: usize,
    rows: Range<usize>,
}

impl RowBlocks {
    /// For rows that may take any time: as many blocks as are useful for balance.
    pub(crate) fn balanced(n_rows: usize, output_row_bytes: usize) -> Self {
        if n_rows <= SINGLE_ROWS_UP_TO {
            return Self { n_rows, block_rows: 1 };
        }
        Self::aligned(n_rows, MAX_BLOCKS, output_row_bytes)
    }

    /// For rows that take the time of reading or writing them: no more blocks than there is work
    /// for.
    pub(crate) fn memory_bound(
        n_rows: usize,
        input_row_bytes: usize,
        output_row_bytes: usize,
    ) -> Self {
        let total_bytes = n_rows.saturating_mul(input_row_bytes.max(output_row_bytes));
        let block_bytes =
            (total_bytes / MEMORY_BOUND_BLOCKS).clamp(LEAST_BLOCK_BYTES, MOST_BLOCK_BYTES);
        let n_blocks = (total_bytes / block_bytes).clamp(1, MAX_BLOCKS);
        Self::aligned(n_rows, n_blocks, output_row_bytes)
    }

    /// About `n_blocks` blocks, whose outputs share no cache line.
    fn aligned(n_rows: usize, n_blocks: usize, output_row_bytes: usize) -> Self {
        let block_rows = n_rows.div_ceil(n_blocks).max(1);
        if n_rows < ALIGNED_FROM {
            return Self { n_rows, block_rows };
        }
        let aligned_rows = CACHE_LINE_BYTES
            >> output_row_bytes.trailing_zeros().min(CACHE_LINE_BYTES.trailing_zeros());
        Self { n_rows, block_rows: block_rows.next_multiple_of(aligned_rows) }
    }

    /// Blocks of `block_rows` rows, or of more where that would make over [`MAX_BLOCKS`] of them. 0
    /// counts as 1.
    pub(crate) fn with_block_rows(n_rows: usize, block_rows: usize) -> Self {
        Self { n_rows, block_rows: block_rows.max(n_rows.div_ceil(MAX_BLOCKS)).max(1) }
    }

    /// The groups of a fold. They follow from the number of rows alone, so that a fold has the same
    /// bits whatever the options.
    pub(crate) fn fold_groups(n_rows: usize) -> Self {
        Self::with_block_rows(n_rows, n_rows.div_ceil(MAX_FOLD_GROUPS))
    }

    /// How many blocks there are; 0 for no rows.
    pub(crate) fn len(&self) -> usize {
        self.n_rows.div_ceil(self.block_rows)
    }

    /// How many rows each block has; the last one may have fewer.
    pub(crate) fn block_rows(&self) -> usize {
        self.block_rows
    }

    /// How many rows there are.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Block number `index`, or `None` past the last.
    pub(crate) fn get(&self, index: usize) -> Option<RowBlock> {
        if index >= self.len() {
            return None;
        }
        let start = index * self.block_rows;
        Some(RowBlock { index, rows: start..(start + self.block_rows).min(self.n_rows) })
    }

    /// Some rows of one block, as a unit of their own, under a number past the last block's. `None`
    /// if there are no rows, or if they are not of one block, or if `index` is a block's.
    pub(crate) fn piece(&self, index: usize, rows: Range<usize>) -> Option<RowBlock> {
        let within = rows.start < rows.end && rows.end <= self.n_rows && index >= self.len();
        (within && self.block_of(rows.start) == self.block_of(rows.end - 1))
            .then_some(RowBlock { index, rows })
    }

    /// How many blocks start before `row`.
    pub(crate) fn starting_before(&self, row: usize) -> usize {
        row.min(self.n_rows).div_ceil(self.block_rows)
    }

    /// The number of the block that holds `row`.
    pub(crate) fn block_of(&self, row: usize) -> usize {
        row / self.block_rows
    }
}

impl RowBlock {
    /// Its number among the units: that of a block, or past the last block for a piece.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Its rows, half-open.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn six_slow_rows_are_six_blocks() {
        let blocks = RowBlocks::balanced(6, 8);
        assert_eq!(blocks.len(), 6);
        assert_eq!(blocks.get(5).unwrap().rows(), 5..6);
    }

    #[test]
    fn a_hundred_slow_rows_are_a_hundred_blocks() {
        assert_eq!(RowBlocks::balanced(100, 8).len(), 100);
    }

    #[test]
    fn next_to_no_data_is_one_block() {
        assert_eq!(RowBlocks::memory_bound(1000, 8, 8).len(), 1);
        assert_eq!(RowBlocks::memory_bound(6, 1 << 20, 8).len(), 6);
    }

    #[test]
    fn no_rows_are_no_blocks() {
        assert_eq!(RowBlocks::balanced(0, 8).len(), 0);
        assert_eq!(RowBlocks::memory_bound(0, 8, 8).len(), 0);
        assert_eq!(RowBlocks::with_block_rows(0, 3).get(0), None);
    }

    #[test]
    fn a_piece_is_some_rows_of_one_block() {
        let blocks = RowBlocks::with_block_rows(25, 10);
        assert_eq!(
            blocks.piece(3, 12..17).map(|piece| (piece.index(), piece.rows())),
            Some((3, 12..17))
        );
        for (index, rows) in
            [(2, 12..17), (3, 12..12), (3, 9..11), (3, 24..26), (3, usize::MAX..usize::MAX)]
        {
            assert_eq!(blocks.piece(index, rows.clone()), None, "{index} {rows:?}");
        }
        assert_eq!(
            [0, 1, 10, 11, 25, usize::MAX].map(|row| blocks.starting_before(row)),
            [0, 1, 1, 2, 3, 3]
        );
    }

    #[test]
    fn a_block_size_that_would_make_too_many_blocks_is_enlarged() {
        assert_eq!(RowBlocks::with_block_rows(10_000_000, 1).len(), 4096);
        assert_eq!(RowBlocks::with_block_rows(10, 3).len(), 4);
    }

    #[test]
    fn a_fold_has_at_most_64_groups_whatever_is_asked_for() {
        for (n_rows, groups) in [(0, 0), (1, 1), (63, 63), (64, 64), (65, 33), (1_000_000, 64)] {
            let cut = Cut::Fixed(RowBlocks::fold_groups(n_rows));
            assert_eq!(cut.blocks(n_rows, None).len(), groups);
            assert_eq!(cut.blocks(n_rows, Some(1)), cut.blocks(n_rows, None));
        }
    }

    #[test]
    fn a_guarded_cut_gathers_neither_too_little_nor_too_much() {
        let guarded = |cut: Cut, n_rows| cut.guarded_blocks(n_rows, None).len();
        assert_eq!(
            guarded(Cut::Balanced { output_row_bytes: 8 }, 1 << 17),
            1024,
            "1 KiB of values at a time"
        );
        assert_eq!(guarded(Cut::Balanced { output_row_bytes: 8 << 10 }, 1 << 17), 4096);
        assert_eq!(guarded(Cut::Balanced { output_row_bytes: 8 }, 1000), 1000);
        let rows = |bytes| Cut::MemoryBound { input_row_bytes: bytes, output_row_bytes: bytes };
        assert_eq!(guarded(rows(8 << 10), 1 << 17), 4096, "256 KiB at a time");
        assert_eq!(guarded(rows(8), 1000), 1);
        let asked = Cut::Balanced { output_row_bytes: 8 }.guarded_blocks(1 << 17, Some(32));
        assert_eq!(asked.len(), 4096);
    }

    proptest! {
        #[test]
        fn blocks_cover_every_row_once_in_order_on_cache_lines(
            n_rows in 0usize..5_000_000, row_bytes in 0usize..100_000, output in 1usize..100, balanced: bool
        ) {
            let blocks = if balanced {
                RowBlocks::balanced(n_rows, output)
            } else {
                RowBlocks::memory_bound(n_rows, row_bytes, output)
            };
            prop_assert!(blocks.len() <= MAX_BLOCKS);
            let mut next = 0;
            for index in 0..blocks.len() {
                let block = blocks.get(index).unwrap();
                prop_assert_eq!(block.index(), index);
                prop_assert_eq!(block.rows().start, next);
                prop_assert!(!block.rows().is_empty());
                prop_assert_eq!(blocks.block_of(block.rows().start), index);
                prop_assert_eq!(blocks.block_of(block.rows().end - 1), index);
                if n_rows >= ALIGNED_FROM && (n_rows > SINGLE_ROWS_UP_TO || !balanced) {
                    prop_assert_eq!(next * output % CACHE_LINE_BYTES, 0);
                }
                next = block.rows().end;
            }
            prop_assert_eq!(next, n_rows);
        }
    }
}
