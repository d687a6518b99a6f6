//! A job as it stands on the board: a call in words.

use crate::engine::blocks::RowBlocks;
use crate::engine::control::CallKey;
use crate::executor::mode::EntryPoint;

/// What a worker needs to know of a call beside the arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) key: CallKey,
    /// Slots from this one on take no part.
    pub(super) workers: usize,
    pub(super) n_rows: usize,
    pub(super) block_rows: usize,
    pub(super) measure_memory: bool,
    pub(super) entry: EntryPoint,
    pub(super) n_segments: usize,
    /// The arguments are in the last segment, not in the record.
    pub(super) is_long: bool,
}

/// Words of a record before the segments.
pub(super) const HEAD_WORDS: usize = 8;

/// A segment of the call: its id, and whether workers write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRef {
    pub(super) id: u64,
    pub(super) writable: bool,
}

impl Job {
    pub(super) fn blocks(&self) -> RowBlocks {
        RowBlocks::with_block_rows(self.n_rows, self.block_rows)
    }

    /// Writes the record: the job, the segments, the arguments if they are short.
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

    /// Reads it: the job, the segments, and the arguments if it is there.
    ///
    /// `entry` makes a function of its address, and must be told that this is a record of
    /// [`Job::encode`], whole.
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
    /// One of the words that [`Job::encode`] wrote for it.
    pub(super) fn of_word(word: u64) -> Self {
        Self { id: word >> 1, writable: word & 1 != 0 }
    }
}
