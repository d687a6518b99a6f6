//! [`Call`]: what an operation asks of an executor.
//!
//! `rows/run.rs` makes one; the executors and the supervisor read it. It is data, and two ways to
//! begin a report. What the caller asks for beside it is in `options.rs`.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::engine::blocks::RowBlocks;
use crate::engine::control::{Control, Tally};
use crate::engine::decide::Division;
use crate::engine::report::{BlockTimes, Report, WorkerReport};
use crate::error::Result;
use crate::segment::{Pages, Segment};

/// One call: the rows and their cut, whose code runs on a block, what may be run again, and what
/// the report says of it. The function that runs on a block is not part of it: an executor gets
/// that by the way that its workers need.
pub(crate) struct Call<'a> {
    pub(crate) blocks: RowBlocks,
    /// At most this many workers at a time. The system is asked once, since its answer may change.
    pub(crate) workers: usize,
    /// How many threads the process had that the workers are copies of. With more than one, a lock
    /// that another thread held at the fork may be why a worker hangs.
    pub(crate) caller_threads: usize,
    /// Bytes of all input rows.
    pub(crate) bytes_read: u64,
    /// Bytes of all output rows.
    pub(crate) bytes_written: u64,
    pub(crate) input_pages: Option<Pages>,
    pub(crate) output_pages: Option<Pages>,
    /// The segments that workers may write to. All others are read-only in a worker.
    pub(crate) writable: Vec<&'a Segment>,
    /// The user's code runs on a block, not only rowfork's.
    pub(crate) foreign: bool,
    /// How a block is divided to find the row that kills.
    pub(crate) division: Division,
    /// For a call in place, whose output is its input: puts back the rows that a worker had saved.
    /// `None` for all other calls.
    pub(crate) restore: Option<&'a RestoreFn<'a>>,
    /// `Truncated` if another process has cut a segment of the call.
    pub(crate) check_lengths: &'a dyn Fn() -> Result<()>,
    /// This call is the last step of a larger one, which began then. It shows no progress of its
    /// own, and it has to succeed.
    pub(crate) last_step_since: Option<Instant>,
}

/// Puts back what the worker of a slot, now dead, had saved. The first argument is rows that begin
/// with the first saved one; the second is the slot.
pub(crate) type RestoreFn<'a> = dyn Fn(Range<usize>, u16) -> Result<()> + 'a;

impl Call<'_> {
    /// The account of a call in which nothing went wrong.
    pub(crate) fn report(
        &self,
        control: Control<'_>,
        elapsed: Duration,
        memory_measured: bool,
    ) -> Report {
        let tallies = control.slots().iter().take(self.workers).map(|slot| &slot.tally);
        let (idle, number) =
            (WorkerReport { wait: elapsed, ..WorkerReport::default() }, control.call().number);
        let of_tally = |tally: &Tally| {
            if !tally.is_of(number) {
                return idle.clone();
            }
            WorkerReport::from_tally(tally, &self.blocks, elapsed, memory_measured)
        };
        Report {
            elapsed,
            block_times: BlockTimes::from_tallies(
                tallies.clone().filter(|tally| tally.is_of(number)),
            ),
            workers: tallies.map(of_tally).collect(),
            ..self.report_without_workers()
        }
    }

    /// The account of a call on which no worker has begun.
    pub(crate) fn report_without_workers(&self) -> Report {
        Report {
            blocks: self.blocks.len(),
            caller_threads: self.caller_threads,
            bytes_read: self.bytes_read,
            bytes_written: self.bytes_written,
            input_pages: self.input_pages,
            output_pages: self.output_pages,
            ..Report::of_rows(self.blocks.n_rows())
        }
    }
}
