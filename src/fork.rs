//! Fork mode, the executor for one call: workers are forked when the call begins and are gone when it ends.
//!
//! The public operations are in `rows`; they end in [`Fork::run`]. What the processes agree on is in `control/README.md`;
//! the calling process's side of a call is
//! `supervisor`, a worker's is `worker`.
//!
//! # Safety
//! One `unsafe` call, the fork: the child runs [`worker::live`] and nothing else, which upholds what `fork` asks.
#![allow(unsafe_code, reason = "forks")]

use std::ops::Range;
use std::time::Duration;

use crate::call::Call;
use crate::cancel::CancelToken;
use crate::control::{Control, Message, MessageKind, Owner};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::policy::Policy;
use crate::report::{Progress, Report};
use crate::segment::registry;
use crate::supervisor::{self, Spawn};
use crate::sys::futex;
use crate::sys::process::{self, ChildFd, Side};
use crate::worker::{self, Job};

/// Options for calls whose workers are forked for that one call. Made by [`fork()`].
#[derive(Debug, Default)]
pub struct Fork<'a> {
    options: Options<'a>,
}

/// Calls whose workers are forked for that one call: the kernel may be any closure, with any captures, since a forked
/// process has a copy (copy-on-write) of everything.
///
/// A call costs some 0.4 ms, 0.1 ms more for each further worker, and 36 ms more for each GiB of *private* memory that the
/// calling process holds in small pages (the kernel copies page tables); memory in [`SharedArray`](crate::SharedArray)s costs nothing.
///
/// # Fork safety
/// A worker is a copy of the calling *thread* alone. Locks that other threads held at that instant stay locked in it for
/// ever: a kernel should not print, log, use a rayon or tokio pool of the caller, or take a lock that other threads use.
/// Arithmetic, allocation, and threads of the kernel's own are fine. rowfork's own code in the worker takes no lock, and
/// allocates nothing but for arrays of dynamic dimension (`IxDyn`) with more than four axes, whose shapes ndarray allocates.
///
/// # Examples
/// ```
/// use rowfork::SharedArray;
///
/// let prices = SharedArray::from_shape_fn(None, (1000, 8), |(i, j)| (i * j) as f64)?;
/// let scale = vec![0.5; 1000];
/// let scaled = rowfork::fork().workers(2).map_rows(&prices, |row| row.sum() * scale[row.index()])?;
/// assert_eq!(scaled.view()[10], 10.0 * 28.0 * 0.5);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[must_use]
pub fn fork<'a>() -> Fork<'a> {
    Fork::default()
}

impl<'a> Fork<'a> {
    /// At most this many workers at a time. Default: the cores that this process may use (CPU affinity and cgroup quota
    /// respected). There are never more workers than blocks.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// Rows per block: the unit of work, of re-running and of progress. The default follows from the shape and rarely
    /// needs a change; it is enlarged where it would make more than 4,096 blocks. Changes no bit of any result.
    #[must_use]
    pub fn block_rows(mut self, block_rows: usize) -> Self {
        self.options.block_rows = Some(block_rows);
        self
    }

    /// The time for the rows, from when the first worker is forked: making the output before and filling rows after come on top.
    /// When it is over all workers are killed, and the [`policy`](Self::policy) says what becomes of the rows that are not done: an error ([`DeadlineExceeded`](Error::DeadlineExceeded)), or a fill.
    /// None by default.
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

    /// A worker that finishes no row for so long is killed, and its row tried again alone: one that hangs every time is
    /// poisoned, as one that kills is. (In `map_blocks` that is no *block* for so long.) Choose it longer than the slowest row
    /// may take on a busy machine. None by default. A worker finds no clock to look at: the caller looks at a counter.
    #[must_use]
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.options.stall_limit = Some(limit);
        self
    }

    /// How often a row that was fatal to a worker is tried again, alone in its block, before it is poisoned: 2 unless said
    /// otherwise, 1,000 at most. With 0 the first death convicts, also one that somebody else has caused; a row that hangs then
    /// costs one stall limit, or two, instead of three, or four.
    ///
    /// SIGKILL and the like may come from anywhere (an OOM killer, an administrator), so there each retry is three, and up to
    /// five more are made if workers die of it on other rows, too: a row that kills so is poisoned after seven to twelve deaths.
    /// Where workers are killed that hold no row, somebody kills from outside, and up to 25 more are made.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = Some(retries);
        self
    }

    /// For kernels that call foreign code: no kernel sees a writable output. What it makes of a block is gathered in the worker's
    /// own memory and written to the output by a system call when the block is done, so a stray store meets no result: one to
    /// a shared array is a fault that the [report](crate::FailedRow) names by address, row and worker, and one elsewhere stays in the
    /// worker.
    ///
    /// Without it a crash (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT) may have written to any row before, so all rows are
    /// run once more when it is found out what crashes; and an update in place ends. With it, the rows of that worker are.
    /// `row_sums` runs no code but rowfork's, and is the same with and without.
    ///
    /// A guarded worker holds one block of output in memory of its own.
    #[must_use]
    pub fn guard(mut self, guard: bool) -> Self {
        self.options.guard = guard;
        self
    }

    /// What becomes of rows that cannot be had: an error ([`Policy::Fail`], the default), or a value in their place and a table
    /// in the report ([`Policy::fill`]).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.options.policy = policy;
        self
    }

    /// Ends the call when `token` is cancelled, from wherever, as a [`deadline`](Self::deadline) does.
    #[must_use]
    pub fn cancel_token(mut self, token: &CancelToken) -> Self {
        self.options.cancel = Some(token.clone());
        self
    }

    /// Calls `check` in the calling thread whenever a signal has interrupted its wait, and at least ten times a second. `true` ends the
    /// call as a cancelled [token](Self::cancel_token) does. For host languages whose signal handlers only take note, such as
    /// Python: `check_interrupt(|| unsafe { PyErr_CheckSignals() } != 0)`.
    #[must_use]
    pub fn check_interrupt(mut self, check: impl Fn() -> bool + 'a) -> Self {
        self.options.check_interrupt = Some(Box::new(check));
        self
    }

    /// Calls `callback` in the calling thread while the workers run: at most ten times a second, and once when all rows are
    /// done. A panic in it ends the call and its workers (and leaves no account of the rows of an update in place).
    #[must_use]
    pub fn progress(mut self, callback: impl Fn(&Progress) + 'a) -> Self {
        self.options.progress = Some(Box::new(callback));
        self
    }

    /// Has every worker measure its private memory and its share of the shared at the end, for the report. Costs a walk
    /// over its page tables, a few milliseconds per GiB of small pages; the call waits up to 10 s for
    /// workers that are at it.
    #[must_use]
    pub fn measure_memory(mut self, measure: bool) -> Self {
        self.options.measure_memory = measure;
        self
    }

    /// Runs a call: from the first fork to the last reap.
    pub(crate) fn run(&self, call: &Call<'_>) -> Result<Report> {
        supervisor::run(&self.options, call, &Forked { measure_memory: self.options.measure_memory })
    }

    /// What every operation is asked to look at before it makes its output.
    pub(crate) fn options(&self) -> &Options<'a> {
        &self.options
    }
}

/// How long a worker may take to leave that is not wanted.
const UNWANTED_PATIENCE: Duration = Duration::from_secs(2);

/// Forks the calling thread.
struct Forked {
    measure_memory: bool,
}

impl Spawn for Forked {
    fn spawn(&self, call: &Call<'_>, control: &Control, owner: Owner) -> Result<ChildFd> {
        let slot = &control.slots()[usize::from(owner.slot)];
        let parent = process::own_pid();
        // Held across the fork: until the child has its own copy of the address space, no other thread may unmap a
        // segment and map something else there, which the child would then make read-only.
        let registry = registry::lock();
        let read_only = read_only_ranges(&registry, &call.writable);
        let job = Job {
            control,
            blocks: &call.blocks,
            run: call.run,
            read_only: &read_only,
            measure_memory: self.measure_memory,
        };
        // SAFETY: the child does nothing but `live`, which takes no lock and never returns. The guard of the registry is
        // the forking thread's, so the child may give back its copy.
        let pid = match unsafe { process::fork() }.map_err(Error::ForkFailed)? {
            Side::Child => {
                drop(registry);
                worker::live(&job, parent, owner)
            }
            Side::Parent(pid) => pid,
        };
        drop(registry);
        // The child waits for `go`. If it ends before (its setup fails), it stays a zombie of ours and its pid its own,
        // unless the host has its children reaped by others.
        let opened = ChildFd::open(pid);
        futex::store_and_wake(&slot.go, if opened.is_ok() { worker::GO } else { worker::ABANDON });
        opened.map_err(|source| {
            process::reap_by_pid(pid, UNWANTED_PATIENCE);
            match slot.message() {
                Some(Message { kind: MessageKind::Setup, text: message, .. }) => Error::WorkerSetup { message },
                _ => Error::Os { action: "open a pidfd for", subject: format!("worker {pid}"), source },
            }
        })
    }
}

/// The mappings that a worker must not write to.
fn read_only_ranges(registry: &registry::Guard, writable: &[usize]) -> Vec<Range<usize>> {
    let read_only = registry.mappings().iter().filter(|mapping| !writable.contains(&mapping.address));
    read_only.map(registry::Mapping::range).collect()
}
