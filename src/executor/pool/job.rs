//! [`Job`]: a call as words, as it stands on the job board.
//!
//! The caller encodes it and the workers decode it. A record has [`HEAD_WORDS`] words of the job, a
//! word for each segment, and the packed arguments if they are short. Nothing is validated here:
//! the board's seal says that a record is whole and the caller's own.

use crate::engine::blocks::RowBlocks;
use crate::engine::control::CallKey;
use crate::executor::mode::EntryPoint;

/// What a worker needs to know of a call beside the segments and the arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    /// What the claim words of the call are sealed with.
    pub(super) key: CallKey,
    /// Slots from this one on take no part.
    pub(super) workers: usize,
    pub(super) n_rows: usize,
    /// Rows per block. With `n_rows` it gives the cut, which is the same in every process.
    pub(super) block_rows: usize,
    /// The workers measure their memory at the end.
    pub(super) measure_memory: bool,
    /// The function that unpacks the arguments and works. Its address is the same in a worker,
    /// which is a fork of the caller.
    pub(super) entry: EntryPoint,
    /// How many segments the call has, that of long arguments included.
    pub(super) n_segments: usize,
    /// The arguments are in the last segment, not in the record.
    pub(super) is_long: bool,
}

/// How many words of a record stand before the segments.
pub(super) const HEAD_WORDS: usize = 8;

/// A segment of the call: its id, and whether workers write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRef {
    pub(super) id: u64,
    pub(super) writable: bool,
}

impl Job {
    /// The cut of the rows into blocks.
    pub(super) fn blocks(&self) -> RowBlocks {
        RowBlocks::with_block_rows(self.n_rows, self.block_rows)
    }

    /// Writes a record: the job, the segments, and `args`, which are empty if they are long.
    pub(super) fn encode(&self, segments: &[SegmentRef], args: &[u64], record: &mut Vec<u64>) {
        record.clear();
        let sizes =
            [self.workers, self.n_rows, self.block_rows, self.entry as usize, self.n_segments];
        record.extend([self.key.nonce, u64::from(self.key.number)]);
        record.extend(sizes.map(|size| size as u64));
        record.push(u64::from(self.measure_memory) | u64::from(self.is_long) << 1);
        record.extend(segments.iter().map(|wanted| wanted.id << 1 | u64::from(wanted.writable)));
        record.extend_from_slice(args);
    }

    /// The inverse: the job, the segments, and the arguments if they are in the record. `None` when
    /// the record is too short.
    ///
    /// `entry` makes a function of its address. The caller of this function must know that the
    /// record is a whole one of [`Job::encode`].
    pub(super) fn decode(
        record: &[u64],
        entry: impl FnOnce(usize) -> EntryPoint,
    ) -> Option<(Self, &[u64], &[u64])> {
        let (head, rest) = record.split_at_checked(HEAD_WORDS)?;
        let size = |at: usize| usize::try_from(head[at]).ok();
        let job = Self {
            key: CallKey { nonce: head[0], number: u32::try_from(head[1]).ok()? },
            workers: size(2)?,
            n_rows: size(3)?,
            block_rows: size(4)?,
            entry: entry(size(5)?),
            n_segments: size(6)?,
            measure_memory: head[7] & 1 != 0,
            is_long: head[7] & 2 != 0,
        };
        let (segments, args) = rest.split_at_checked(job.n_segments)?;
        Some((job, segments, args))
    }
}

impl SegmentRef {
    /// The inverse of what [`Job::encode`] writes for a segment.
    pub(super) fn of_word(word: u64) -> Self {
        Self { id: word >> 1, writable: word & 1 != 0 }
    }
}
