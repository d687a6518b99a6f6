//! [`Executor`]: what a caller may ask of a call, and what every operation is a method of, whatever workers it has.
//!
//! The operations are in `rows`. Where the workers come from is for the modes to say: `fork/` and
//! `pool/`.

pub(crate) mod fork;
pub(crate) mod mode;
pub(crate) mod pool;

use std::fmt;
use std::time::Duration;

use crate::engine::cancel::CancelToken;
use crate::engine::options::Options;
use crate::engine::policy::Policy;
use crate::engine::report::Progress;

/// Options for calls, and the calls: every operation is a method of this type, whatever the workers
/// are that it has.
///
/// | made by | it is a | its workers | kernels |
/// |---|---|---|---|
/// | [`fork()`](crate::fork()) | [`Fork`](crate::Fork) | are forked for each call | any closure |
/// | [`Pool::call`](crate::Pool::call), or a [`Pool`](crate::Pool) itself | [`PoolCall`](crate::PoolCall) | are there already | functions, and closures without captures |
pub struct Executor<'a, M> {
    options: Options<'a>,
    mode: M,
}

impl<'a, M> Executor<'a, M> {
    pub(crate) fn new(options: Options<'a>, mode: M) -> Self {
        Self { options, mode }
    }

    /// At most this many workers at a time. Default: the cores that this process may use (CPU
    /// affinity and cgroup quota respected). There are never more workers than blocks. On a pool:
    /// of those that it has, by default all.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// Rows per block: the unit of work, of re-running and of progress. The default follows from
    /// the shape and rarely needs a change; it is enlarged where it would make more than 4,096
    /// blocks. Changes no bit of any result.
    #[must_use]
    pub fn block_rows(mut self, block_rows: usize) -> Self {
        self.options.block_rows = Some(block_rows);
        self
    }

    /// The time for the rows, from when the first worker is forked, or on a pool from when it is
    /// the call's turn: making the output before and filling rows after come on top. When it is
    /// over all workers are killed, and the [`policy`](Self::policy) says what becomes of the rows
    /// that are not done: an error ([`DeadlineExceeded`](crate::Error::DeadlineExceeded)), or a
    /// fill. None by default.
    ///
    /// It bounds a kernel that hangs, too; [`stall_limit`](Self::stall_limit) finds the row.
    ///
    /// ```
    /// use std::time::Duration;
    /// use rowfork::{EarlyEnd, Policy, SharedArray};
    ///
    /// let m = SharedArray::<f64, _>::zeros(None, (100, 3))?;
    /// let slow = rowfork::fork().workers(1).deadline(Duration::from_millis(200)).policy(Policy::fill(-1)).map_rows(&m, |row| {
    ///     std::thread::sleep(Duration::from_millis(10));
    ///     row.index() as f64
    /// })?;
    /// assert_eq!(slow.report().ended_early, Some(EarlyEnd::Deadline));
    /// assert_eq!((slow[0], slow[99]), (0.0, -1.0));
    /// assert_eq!(slow.missing_rows().last().unwrap().end, 100);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// A worker that finishes no row for so long is killed, and its row tried again alone: one that
    /// hangs every time is poisoned, as one that kills is. (In `map_blocks` that is no *block* for
    /// so long.) Choose it longer than the slowest row may take on a busy machine. None by default.
    /// A worker finds no clock to look at: the caller looks at a counter.
    #[must_use]
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.options.stall_limit = Some(limit);
        self
    }

    /// How often a row that was fatal to a worker is tried again, alone in its block, before it is
    /// poisoned: 2 unless said otherwise, 1,000 at most. With 0 the first death convicts, also one
    /// that somebody else has caused; a row that hangs then costs one stall limit, or two, instead
    /// of three, or four.
    ///
    /// SIGKILL and the like may come from anywhere (an OOM killer, an administrator), so there each
    /// retry is three, and up to five more are made if workers die of it on other rows, too: a row
    /// that kills so is poisoned after seven to twelve deaths. Where workers are killed that hold
    /// no row, somebody kills from outside, and up to 25 more are made.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = Some(retries);
        self
    }

    /// For kernels that call foreign code: no kernel sees a writable output. What it makes of a
    /// block is gathered in the worker's own memory and written to the output by a system call when
    /// the block is done, so a stray store meets no result: one to a shared array is a fault that
    /// the [report](crate::FailedRow) names by address, row and worker, and one elsewhere stays in
    /// the worker.
    ///
    /// Without it a crash (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT) may have written to any row
    /// before, so all rows are run once more when it is found out what crashes; and an update in
    /// place ends. With it, the rows of that worker are. `row_sums` runs no code but rowfork's, and
    /// is the same with and without.
    ///
    /// A guarded worker holds one block of output in memory of its own.
    #[must_use]
    pub fn guard(mut self, guard: bool) -> Self {
        self.options.guard = guard;
        self
    }

    /// What becomes of rows that cannot be had: an error ([`Policy::Fail`], the default), or a
    /// value in their place and a table in the report ([`Policy::fill`]).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.options.policy = policy;
        self
    }

    /// Ends the call when `token` is cancelled, from wherever, as a [`deadline`](Self::deadline)
    /// does.
    #[must_use]
    pub fn cancel_token(mut self, token: &CancelToken) -> Self {
        self.options.cancel = Some(token.clone());
        self
    }

    /// Calls `check` in the calling thread whenever a signal has interrupted its wait, and at least
    /// ten times a second. `true` ends the call as a cancelled [token](Self::cancel_token) does.
    /// For host languages whose signal handlers only take note, such as Python:
    /// `check_interrupt(|| unsafe { PyErr_CheckSignals() } != 0)`.
    #[must_use]
    pub fn check_interrupt(mut self, check: impl Fn() -> bool + 'a) -> Self {
        self.options.check_interrupt = Some(Box::new(check));
        self
    }

    /// Calls `callback` in the calling thread while the workers run: at most ten times a second,
    /// and once when all rows are done. A panic in it ends the call and its workers (and leaves no
    /// account of the rows of an update in place).
    #[must_use]
    pub fn progress(mut self, callback: impl Fn(&Progress) + 'a) -> Self {
        self.options.progress = Some(Box::new(callback));
        self
    }

    /// Has every worker measure its private memory and its share of the shared at the end, for the
    /// report. Costs a walk over its page tables, a few milliseconds per GiB of small pages; the
    /// call waits up to 10 s for workers that are at it.
    #[must_use]
    pub fn measure_memory(mut self, measure: bool) -> Self {
        self.options.measure_memory = measure;
        self
    }

    /// What every operation is asked to look at before it makes its output.
    pub(crate) fn options(&self) -> &Options<'a> {
        &self.options
    }

    pub(crate) fn mode(&self) -> &M {
        &self.mode
    }
}

impl<M: fmt::Debug> fmt::Debug for Executor<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("options", &self.options)
            .field("mode", &self.mode)
            .finish()
    }
}
