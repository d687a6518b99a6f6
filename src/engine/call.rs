//! What an operation asks of an executor.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::engine::blocks::RowBlocks;
use crate::engine::control::{Control, Tally};
use crate::engine::decide::Division;
use crate::engine::report::{BlockTimes, Report, WorkerReport};
use crate::error::Result;
use crate::segment::{Pages, Segment};

/// One call: the rows and their cut, what is run on a block, what may be run again, and what the
/// report shall say of it.
pub(crate) struct Call<'a> {
    pub(crate) blocks: RowBlocks,
    /// At most so many at a time: asked once, since the system's answer may change.
    pub(crate) workers: usize,
    /// Threads of the process that was forked, when it was: why a worker may hang.
    pub(crate) caller_threads: usize,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) input_pages: Option<Pages>,
    pub(crate) output_pages: Option<Pages>,
    /// What workers may write to: all other segments are read-only in them.
    pub(crate) writable: Vec<&'a Segment>,
    /// What is run on a block is the user's code, not ours.
    pub(crate) foreign: bool,
    pub(crate) division: Division,
    /// The output is the input: what a worker has saved of it is put back by this, given the rows
    /// from the first one saved on.
    pub(crate) restore: Option<&'a RestoreFn<'a>>,
    /// `Truncated` if somebody has cut a segment of the call.
    pub(crate) check_lengths: &'a dyn Fn() -> Result<()>,
    /// The last step of a larger call, which began then: it shows no progress of its own, and has
    /// to succeed.
    pub(crate) last_step_since: Option<Instant>,
}

/// Puts back what the worker of a slot had saved.
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

    /// The account of a call that no worker has begun with.
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
