//! [`Executor`]: the options of a call, and the type that every operation is a method of.
//!
//! Programs use it by the names of the two modes, which say where workers come from: `fork/` forks
//! them for each call, `pool/` has them ready. The operations are in `rows/`, above this module. It
//! only stores the options; `engine/options.rs` checks them, and the engine acts on them.

pub(crate) mod fork;
pub(crate) mod mode;
pub(crate) mod pool;

use std::fmt;
use std::time::Duration;

use crate::engine::cancel::CancelToken;
use crate::engine::options::Options;
use crate::engine::policy::Policy;
use crate::engine::report::Progress;

/// Options for calls, and the calls: every operation is a method of this type, wherever its workers
/// come from.
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

    /// At most this many workers at a time. Default: one for each core that this process may use
    /// (CPU affinity and cgroup quota respected); on a pool, all workers that it has, which are
    /// also the most. There are never more workers than blocks.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// Rows per block: the unit of work, of re-running and of progress. The default follows from
    /// the shape and rarely needs a change. A number that would make more than 4,096 blocks is
    /// enlarged. This option changes no bit of any result.
    #[must_use]
    pub fn block_rows(mut self, block_rows: usize) -> Self {
        self.options.block_rows = Some(block_rows);
        self
    }

    /// How long the rows may take. The time begins when the first worker is forked, or on a pool
    /// when it is the call's turn. Making the output before, and filling rows after, come on top.
    /// When the time is over all workers are killed, and the [`policy`](Self::policy) says what
    /// becomes of the rows that are not done: an error
    /// ([`DeadlineExceeded`](crate::Error::DeadlineExceeded)), or a fill value. No limit by
    /// default.
    ///
    /// A deadline bounds a kernel that hangs, too; [`stall_limit`](Self::stall_limit) finds the
    /// row.
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

    /// A worker that finishes no row for this long is killed, and its row is tried again alone. A
    /// row that hangs every time is poisoned, as one that kills is. (In `map_blocks` the limit is
    /// for a *block*.) Choose it longer than the slowest row may take on a busy machine. No limit
    /// by default. Workers look at no clock for it: the caller looks at a counter.
    #[must_use]
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.options.stall_limit = Some(limit);
        self
    }

    /// How often a row that was fatal to a worker is tried again, alone in its block, before it is
    /// poisoned: 2 unless said otherwise, 1,000 at most. With 0, one death is enough, even if
    /// another process caused it. A hanging row then costs one or two stall limits instead of three
    /// or four.
    ///
    /// SIGKILL and the like may come from anywhere (an OOM killer, an administrator). For such
    /// deaths each retry counts as three, and up to five more retries are made if workers die in
    /// the same way on other rows, so a row that kills in this way is poisoned after seven to
    /// twelve deaths. Where workers are killed that hold no row, the kills come from outside for
    /// certain, and up to 25 more retries are made.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = Some(retries);
        self
    }

    /// For kernels that call foreign code: no kernel sees a writable output. The values of a block
    /// are gathered in the worker's own memory, and a system call writes them to the output when
    /// the block is done. So a stray store cannot hit a result. A stray store to a shared array is
    /// a fault, which the [report](crate::FailedRow) names by address, row and worker; a stray
    /// store elsewhere stays in the worker.
    ///
    /// Without a guard, a kernel that crashes (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT) may have
    /// written to any row before. So all rows are run once more when the crashing row has been
    /// found, and an update in place ends with an error. With a guard, only the rows of that worker
    /// are run again. `row_sums` runs no code but rowfork's, and is the same with and without.
    ///
    /// A guarded worker holds one block of output in memory of its own.
    #[must_use]
    pub fn guard(mut self, guard: bool) -> Self {
        self.options.guard = guard;
        self
    }

    /// What becomes of rows that fail or are not run: an error ([`Policy::Fail`], the default), or
    /// a value in their place and a list in the report ([`Policy::fill`]).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.options.policy = policy;
        self
    }

    /// Ends the call when `token` is cancelled, as a [`deadline`](Self::deadline) does. Any thread,
    /// worker or signal handler may cancel it.
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
    /// and once when all rows are done. A panic in the callback ends the call and its workers.
    /// After such a panic nothing says which rows of an update in place are new.
    #[must_use]
    pub fn progress(mut self, callback: impl Fn(&Progress) + 'a) -> Self {
        self.options.progress = Some(Box::new(callback));
        self
    }

    /// Has every worker measure its private memory, and its share of shared memory, at the end, for
    /// the report. This costs a walk over the worker's page tables, a few milliseconds per GiB of
    /// small pages. The call waits up to 10 s for workers that are still measuring.
    #[must_use]
    pub fn measure_memory(mut self, measure: bool) -> Self {
        self.options.measure_memory = measure;
        self
    }

    /// The options, which every operation checks before it makes its output.
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
