//! What a call tells its caller: while it runs ([`Progress`]), and when it is over ([`Report`],
//! [`Output`]).
//!
//! The supervisor and `rows/run.rs` make these; programs read them. The counters come from shared
//! memory, so every value is cut to what is possible.

use std::fmt::{self, Write};
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::engine::blocks::RowBlocks;
use crate::engine::control::Tally;
use crate::engine::ranges::count as count_rows;
use crate::error::{DeathCause, FailedRow, MAX_LISTED};
use crate::segment::Pages;

/// A result and the report on how it was made. Dereferences to the result.
#[derive(Debug)]
pub struct Output<T> {
    value: T,
    report: Report,
}

impl<T> Output<T> {
    pub(crate) fn new(value: T, report: Report) -> Self {
        Self { value, report }
    }

    /// How the call went.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The rows that have no result, in order: those that failed, and those that were not run when
    /// the call ended early. They hold the value of the [`Policy`](crate::Policy); a fold has left
    /// them out. Empty where the policy is to fail.
    pub fn missing_rows(&self) -> &[Range<usize>] {
        &self.report.missing_rows
    }

    /// The result alone.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The result and its report.
    pub fn into_parts(self) -> (T, Report) {
        (self.value, self.report)
    }
}

impl<T> Deref for Output<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Output<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// How far a running call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Rows finished. Never falls.
    pub rows_done: usize,
    /// Rows in all.
    pub rows_total: usize,
    /// The time since the call began.
    pub elapsed: Duration,
}

impl Progress {
    /// Rows per second so far.
    #[must_use]
    pub fn rows_per_second(&self) -> f64 {
        self.rows_done as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The time left at the rate so far; `None` before the first row is finished.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = (self.rows_total - self.rows_done) as f64;
        (self.rows_done > 0).then(|| {
            Duration::try_from_secs_f64(left / self.rows_per_second()).unwrap_or(Duration::MAX)
        })
    }
}

/// The account of one call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// Rows of the input.
    pub rows: usize,
    /// Blocks that the rows were cut into.
    pub blocks: usize,
    /// The call was small, and the calling thread did it itself, without workers.
    pub inline: bool,
    /// From the first fork to the last reap; on a pool, from the job's announcement to its end.
    pub elapsed: Duration,
    /// One entry per worker slot; a worker that died and its replacement share a slot.
    pub workers: Vec<WorkerReport>,
    /// The shortest, mean and longest time for a block; `None` when there was none.
    pub block_times: Option<BlockTimes>,
    /// Workers that died before their work was done, in the order seen.
    pub deaths: Vec<WorkerDeath>,
    /// Rows that were found to kill, hang or fail every worker that runs them, in order. Empty
    /// where the policy is to fail.
    pub failed_rows: Vec<FailedRow>,
    /// The failed rows, and those that were not run when the call ended early, in order.
    pub missing_rows: Vec<Range<usize>>,
    /// Why not all rows were run, if so.
    pub ended_early: Option<EarlyEnd>,
    /// What is not wrong with the result, but may be with its surroundings.
    pub warnings: Vec<Warning>,
    /// Threads of the calling process when it forked. With more than one, a kernel that takes a
    /// lock (prints, logs) may hang.
    pub caller_threads: usize,
    /// Rows that were given to another worker after a death. (When the worker dies that combines a
    /// fold, no row is run again.)
    pub rerun_rows: usize,
    /// Bytes of all input rows, each counted once, missing rows included.
    pub bytes_read: u64,
    /// Bytes of all output rows, each counted once. Missing rows, which hold the value of the
    /// policy, are included.
    pub bytes_written: u64,
    /// The page sizes that the input has; `None` where another process made it.
    pub input_pages: Option<Pages>,
    /// The page sizes that the output has; `None` where another process made it.
    pub output_pages: Option<Pages>,
}

/// Why a call ended before all its rows were run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EarlyEnd {
    /// Its [deadline](crate::Executor::deadline) was over.
    Deadline,
    /// Its [token](crate::Executor::cancel_token) was cancelled, or its
    /// [check](crate::Executor::check_interrupt) said so.
    Cancelled,
}

/// What is not wrong with a result, but may be with its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The name of an array of the call does not lead to it any more: somebody has removed or
    /// replaced the file. (A clean-up at logout removes all that a user has in `/dev/shm`; see
    /// `RemoveIPC` in logind.conf.) The array is whole, but other programs do not find it.
    NameGone {
        /// The name.
        name: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameGone { name } => write!(
                f,
                "the name {name:?} does not lead to its array any more: somebody removed or replaced /dev/shm/{name} (a clean-up \
                 at logout: RemoveIPC=no in logind.conf)"
            ),
        }
    }
}

/// What the workers of one slot have done in the call, one after another.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Blocks finished.
    pub blocks: usize,
    /// Rows in those blocks.
    pub rows: usize,
    /// Time spent in blocks.
    pub busy: Duration,
    /// The rest of the call: the time before the worker was there, and all time that it waited,
    /// also for others to finish.
    pub wait: Duration,
    /// Bytes of pages that no other process shares, at the end of the worker's work. `None` unless
    /// asked for with [`Fork::measure_memory`](crate::Executor::measure_memory), or if no worker of
    /// the slot lived to measure it.
    pub private_bytes: Option<u64>,
    /// Bytes of the worker's proportional share of all its pages (PSS), under the same conditions.
    pub proportional_bytes: Option<u64>,
}

/// Times for one block.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BlockTimes {
    /// The shortest.
    pub shortest: Duration,
    /// The mean.
    pub mean: Duration,
    /// The longest.
    pub longest: Duration,
}

/// A worker that died before its work was done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerDeath {
    /// Its slot.
    pub worker: usize,
    /// How it died.
    pub cause: DeathCause,
    /// The rows of the block that it held, if it held one. For the worker that combines a fold
    /// these are all rows.
    pub rows: Option<Range<usize>>,
}

impl WorkerReport {
    /// From the counters of a slot. They lie in shared memory, where a stray store may have changed
    /// them, so a value that cannot be is cut to one that can.
    pub(crate) fn from_tally(
        tally: &Tally,
        blocks: &RowBlocks,
        elapsed: Duration,
        memory_measured: bool,
    ) -> Self {
        let busy = Duration::from_nanos(tally.busy_ns.load(Relaxed)).min(elapsed);
        // 0 says that the worker did not live to measure it.
        let measured = |bytes: &AtomicU64| {
            Some(bytes.load(Relaxed)).filter(|&bytes| memory_measured && bytes > 0)
        };
        Self {
            blocks: count(&tally.blocks).min(blocks.len()),
            rows: count(&tally.rows).min(blocks.n_rows()),
            busy,
            wait: elapsed.saturating_sub(busy),
            private_bytes: measured(&tally.private_bytes),
            proportional_bytes: measured(&tally.proportional_bytes),
        }
    }
}

impl BlockTimes {
    /// From the counters of all slots; `None` if no block was finished.
    pub(crate) fn from_tallies<'t>(
        tallies: impl Iterator<Item = &'t Tally> + Clone,
    ) -> Option<Self> {
        let worked = tallies.filter(|tally| tally.blocks.load(Relaxed) > 0);
        let all = |counter: fn(&Tally) -> &AtomicU64| {
            worked.clone().map(move |tally| counter(tally).load(Relaxed))
        };
        let sum = |counter| all(counter).fold(0, u64::saturating_add);
        Some(Self {
            shortest: Duration::from_nanos(all(|tally| &tally.shortest_block_ns).min()?),
            mean: Duration::from_nanos(
                sum(|tally| &tally.busy_ns).checked_div(sum(|tally| &tally.blocks))?,
            ),
            longest: Duration::from_nanos(all(|tally| &tally.longest_block_ns).max()?),
        })
    }
}

fn count(counter: &AtomicU64) -> usize {
    usize::try_from(counter.load(Relaxed)).unwrap_or(usize::MAX)
}

impl Report {
    /// A report on a call of this many rows, with nothing else to tell.
    pub(crate) fn of_rows(rows: usize) -> Self {
        Self {
            rows,
            blocks: 1,
            inline: false,
            elapsed: Duration::ZERO,
            workers: Vec::new(),
            block_times: None,
            deaths: Vec::new(),
            failed_rows: Vec::new(),
            missing_rows: Vec::new(),
            ended_early: None,
            warnings: Vec::new(),
            caller_threads: 1,
            rerun_rows: 0,
            bytes_read: 0,
            bytes_written: 0,
            input_pages: None,
            output_pages: None,
        }
    }

    /// The report on a call in two parts: this report on the first part, with the output, the time
    /// and the deaths of the second added. `rows_of` turns rows of the second part into rows of the
    /// first.
    pub(crate) fn followed_by(
        mut self,
        second: &Self,
        rows_of: impl Fn(Range<usize>) -> Range<usize>,
    ) -> Self {
        self.elapsed += second.elapsed;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let later = second.workers.get(index).cloned().unwrap_or_default();
            worker.busy += later.busy;
            worker.wait += second.elapsed.saturating_sub(later.busy);
            worker.private_bytes = worker.private_bytes.max(later.private_bytes);
            worker.proportional_bytes = worker.proportional_bytes.max(later.proportional_bytes);
        }
        let later = second.deaths.iter().cloned();
        self.deaths
            .extend(later.map(|death| WorkerDeath { rows: death.rows.map(&rows_of), ..death }));
        self.warnings.extend(
            second
                .warnings
                .iter()
                .filter(|warning| !self.warnings.contains(warning))
                .cloned()
                .collect::<Vec<_>>(),
        );
        self.bytes_written = second.bytes_written;
        self.output_pages = second.output_pages;
        self
    }

    /// Rows that are not missing.
    fn finished_rows(&self) -> usize {
        self.rows.saturating_sub(count_rows(&self.missing_rows))
    }

    /// Input and output bytes per second of the whole call, in units of 10^9. Missing rows do not
    /// count, so the rate of a call that ended before any row was finished is 0.
    #[must_use]
    pub fn gigabytes_per_second(&self) -> f64 {
        let finished = self.finished_rows() as f64 / self.rows.max(1) as f64;
        let bytes = (self.bytes_read + self.bytes_written) as f64 * finished;
        bytes / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE) / 1e9
    }

    /// The share of the workers' time that was spent in blocks, 0 to 1. Rule of thumb: below 0.8,
    /// fewer workers, larger inputs or a serial loop are the better choice.
    ///
    /// Only finished blocks count. After a call that [ended early](Self::ended_early) the figure
    /// therefore says little, and is not printed: the workers spent time in unfinished blocks, too.
    #[must_use]
    pub fn efficiency(&self) -> f64 {
        let busy: f64 = self.workers.iter().map(|worker| worker.busy.as_secs_f64()).sum();
        let total = self.elapsed.as_secs_f64()
            * f64::from(u32::try_from(self.workers.len()).unwrap_or(u32::MAX));
        if total > 0.0 { (busy / total).min(1.0) } else { 1.0 }
    }
}

/// Writes a line for each of the first [`MAX_LISTED`], and one with the total if there are more. A
/// message of a kernel stays on one line, whatever line breaks it has.
fn some_of<T>(
    f: &mut fmt::Formatter<'_>,
    all: &[T],
    what: &str,
    one: impl Fn(&mut String, &T) -> fmt::Result,
) -> fmt::Result {
    for entry in all.iter().take(MAX_LISTED) {
        let mut line = String::new();
        one(&mut line, entry)?;
        writeln!(f, "{}", line.replace('\n', " "))?;
    }
    if all.len() > MAX_LISTED { writeln!(f, "... {} {what} in all", all.len()) } else { Ok(()) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows in {} blocks, {:.3} ms",
            self.rows,
            self.blocks,
            self.elapsed.as_secs_f64() * 1e3
        )?;
        if self.bytes_read > 0 && self.finished_rows() > 0 {
            write!(f, ", {:.1} GB/s", self.gigabytes_per_second())?;
        }
        if self.inline {
            write!(f, ", by the calling thread")?;
        } else if self.ended_early.is_none() {
            write!(f, ", efficiency {:.0} %", self.efficiency() * 100.0)?;
        }
        writeln!(f)?;
        for (index, worker) in self.workers.iter().enumerate() {
            write!(
                f,
                "worker {index}: {} rows in {} blocks, busy {:.3} ms",
                worker.rows,
                worker.blocks,
                worker.busy.as_secs_f64() * 1e3
            )?;
            if let Some(private) = worker.private_bytes {
                write!(f, ", {} KiB of its own", private / 1024)?;
            }
            writeln!(f)?;
        }
        match self.ended_early {
            Some(EarlyEnd::Deadline) => {
                writeln!(f, "the deadline was over before all rows were done")?;
            }
            Some(EarlyEnd::Cancelled) => writeln!(f, "cancelled before all rows were done")?,
            None => {}
        }
        if !self.missing_rows.is_empty() {
            write!(f, "{} rows are missing:", count_rows(&self.missing_rows))?;
            self.missing_rows
                .iter()
                .take(MAX_LISTED)
                .try_for_each(|rows| write!(f, " {rows:?}"))?;
            writeln!(f, "{}", if self.missing_rows.len() > MAX_LISTED { " ..." } else { "" })?;
        }
        some_of(f, &self.failed_rows, "failed rows", |line, failed| write!(line, "{failed}"))?;
        some_of(
            f,
            &self.deaths,
            "deaths of workers",
            |line, WorkerDeath { worker, cause, rows }| match rows {
                Some(rows) => write!(line, "a worker in slot {worker} {cause} over rows {rows:?}"),
                None => write!(line, "a worker in slot {worker} {cause} while it held no rows"),
            },
        )?;
        if self.rerun_rows > 0 {
            writeln!(f, "{} rows were run again", self.rerun_rows)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        Ok(())
    }
}
