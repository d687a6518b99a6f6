//! [`Pool`], the executor that persists. Its workers were forked before the call, so a call costs
//! microseconds.
//!
//! Programs make a pool and call the operations on it. `rows/run.rs` hands each call to `Run::run`
//! below, which sees it through. What becomes of a dead worker's blocks is not decided here but in
//! `engine/`, as for workers that are forked for one call.
//!
//! | file | process | what |
//! |---|---|---|
//! | `mod.rs` | caller | the public face; one call, from the queue to the report |
//! | `builder.rs`, `defaults.rs` | caller | making a pool; the options that its calls begin with |
//! | `queue.rs`, `spin.rs`, `counters.rs` | caller | one call at a time; how long to spin before sleeping (workers, too); `stats()` |
//! | `call_workers.rs` | caller | the workers of one call, as the supervisor sees them |
//! | `worker_table.rs`, `mailboxes.rs` | caller | which process is in which slot; what each worker was sent |
//! | `zygote.rs` | zygote | forks and reaps the workers; guards what the caller leaves |
//! | `worker.rs`, `maps.rs` | worker | its whole life; the segments that it has mapped |
//! | `job_board.rs`, `job.rs` | all | the job, in a seqlock, and the words that say which processes sleep; the job as words |
//! | `shared_state.rs` | zygote, worker | what they share, made by the caller before the fork |
//! | `messages.rs` | all | the messages between them |
//!
//! What the processes agree on is in `README.md`, beside this file.
//!
//! # Safety
//! A pool is shared by threads, although its type could hold callbacks, which are not. Its
//! `unsafe impl`s say why it holds none.
#![allow(unsafe_code, reason = "says that a pool may be shared by threads")]

mod builder;
mod call_workers;
mod counters;
mod defaults;
mod job;
mod job_board;
mod mailboxes;
mod maps;
mod messages;
mod queue;
mod shared_state;
mod silence;
mod spin;
mod worker;
mod worker_table;
mod zygote;

pub use builder::PoolBuilder;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ndarray::{ArrayView1, Ix1};

use self::call_workers::CallWorkers;
use self::counters::{Counters, count};
use self::defaults::Defaults;
use self::job::{Job, SegmentRef};
use self::job_board::{JobBoard, RECORD_WORDS};
use self::mailboxes::Mailboxes;
use self::maps::MAX_SEGMENTS;
use self::queue::{Queue, Refusal};
use self::spin::SpinBudget;
use self::worker_table::WorkerTable;
use crate::array::SharedArray;
use crate::engine::args::{CAPTURES, PackedArgs};
use crate::engine::call::Call;
use crate::engine::cancel::CancelToken;
use crate::engine::control::{CallKey, ClaimState, Control, digest};
use crate::engine::options::Options;
use crate::engine::report::{EarlyEnd, Report};
use crate::engine::supervisor;
use crate::engine::worker::BlockFn;
use crate::engine::worker_set::WorkerSet;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::executor::mode::sealed::Run;
use crate::executor::mode::{EntryPoint, KernelCodec, KernelFor, Mode};
use crate::segment::Segment;
use crate::sys::shared::SharedPages;

/// Workers that are there already, so that a call takes microseconds. Every operation of
/// [`fork()`](crate::fork()) is a method of a pool (by way of [`Executor`], to which it
/// dereferences), with the same results, errors and reports.
///
/// ```
/// use rowfork::{Pool, SharedArray, param};
///
/// let pool = Pool::new()?; // early: while the program is small, and has one thread
/// let m = SharedArray::from_shape_fn(None, (1000, 16), |(i, j)| (i + j) as f64)?;
///
/// let sums = pool.row_sums(&m)?;
/// let norms = pool.map_rows(&m, |row| row.dot(&row).sqrt())?;
///
/// // A kernel captures nothing: what it needs goes with the input. Options for one call: `call()`.
/// let limit = 100.0;
/// let report = pool.call().workers(1).map_rows((&m, param(limit)), |(row, limit)| row.sum() > limit)?;
/// assert_eq!((sums[1], norms.len(), bool::from(report[999])), (136.0, 1000, true));
/// # Ok::<(), rowfork::Error>(())
/// ```
///
/// # Kernels
/// Workers were forked before the call, so they have no copy of what a closure captures. A kernel
/// is a function by name, a closure without captures, or a function pointer. What else it needs
/// goes with the input, as [`param`](crate::param), [`broadcast`](crate::broadcast) or rows of
/// another array. (A kernel that captures something does not compile, or the call is
/// [`KernelCaptures`](Error::KernelCaptures). A function that was loaded after the pool was made is
/// [`KernelNotInZygote`](Error::KernelNotInZygote).) Statics are as they were when the pool was
/// made, and what a kernel changes in them stays in its worker, from call to call. A shared array
/// in a static is no way around: a worker sees only the arrays of the call.
///
/// # Threads
/// Any number of threads may use a pool, by reference: calls are made one at a time, in the order
/// in which they came. The thread that makes a pool may end before it.
///
/// # What is where
/// A *zygote* process is forked when the pool is made. It forks the workers; when one dies, it
/// forks another within milliseconds. The zygote and the workers leave the terminal's process
/// group, keep no descriptor of the caller's but the standard three, and hold a copy-on-write copy
/// of the caller's private memory as it was then. (Each GiB of it in small pages adds 36 ms to the
/// fork of a worker: make the pool before the program is large.) Idle, none of them uses any
/// processor time. When the caller ends, in whatever way, they end within milliseconds, and its
/// volatile names go with them. Dropping the pool ends them, too.
///
/// # Small calls
/// Operations that run no code but rowfork's (`row_sums`, `row_means`, ...) on less than
/// [`inline_below`](PoolBuilder::inline_below) bytes are done by the calling thread, where that is
/// quicker than any worker. The arrays must be nameless, so that no other process can take their
/// memory away while the caller reads it. Kernels of the user's always run in workers.
///
/// # Fork safety
/// A lock that another thread of the program held when the pool was made is held for ever in every
/// worker: make the pool early. A forked child of the program cannot use its parent's pool.
pub struct Pool {
    executor: Executor<'static, Persistent>,
    defaults: Defaults,
}

// SAFETY: the only part of the type that is not `Sync` or `Send` are the callbacks in its options,
// and a pool has none. Its options are made from `Defaults`, which has no callbacks, and the
// executor is given out by shared reference only, through which no callback can be set.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

// Everything in a `Pool` apart from the callbacks is `Send` and `Sync` by itself.
const _: () = {
    const fn all_else_is_shared<T: Send + Sync>() {}
    all_else_is_shared::<Persistent>();
    all_else_is_shared::<CancelToken>();
};

/// A call on a pool, with options of its own. Made by [`Pool::call`].
pub type PoolCall<'a> = Executor<'a, Persistent>;

/// The mode of a pool: workers that are there before the call.
pub struct Persistent(Arc<PoolInner>);

/// What a pool has done so far. Given by [`Pool::stats`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Slots for workers.
    pub workers: usize,
    /// Calls on the workers. (A fold is two.)
    pub calls: u64,
    /// Calls that the calling thread did itself, since they were small.
    pub inline_calls: u64,
    /// How many of the calls on the workers ended so soon that the caller had not gone to sleep.
    pub hot_calls: u64,
    /// Workers that died for any other reason than those of `recycled`, including those that
    /// rowfork kills after a failed call because they might still write to the output.
    pub deaths: u64,
    /// Workers that left after [as many calls as they may
    /// make](PoolBuilder::calls_per_worker), or because more arrays were alive than a worker keeps
    /// mapped.
    pub recycled: u64,
    /// Threads that wait for their turn at this moment.
    pub waiting: usize,
    /// How many arrays a worker keeps mapped for the next call: the highest number among the
    /// workers. At most 256.
    pub mapped_arrays: usize,
    /// The process that forks the workers.
    pub zygote_pid: i32,
    /// The workers, the lowest slot first. Empty while a call of another thread runs.
    pub worker_pids: Vec<i32>,
    /// Why no call can be made any more, if so. `None` while a call of another thread runs.
    pub broken: Option<String>,
    /// Threads of the program when the pool was made. With more than one, a lock that another
    /// thread held then is held for ever in the workers.
    pub caller_threads: usize,
}

/// What all users of a pool share: the threads that hold a reference to it, and its
/// [`PoolCall`]s.
struct PoolInner {
    /// Lets one thread in at a time. It is entered before `state` is locked.
    queue: Queue,
    state: Mutex<State>,
    board: Arc<JobBoard>,
    mailboxes: Arc<Mailboxes>,
    /// The pages of the control block, in which every call has its own claim words.
    control: SharedPages,
    counters: Arc<Counters>,
    /// The process that made the pool. A forked child of it must not use it.
    pid: u32,
    zygote_pid: i32,
    /// Slots for workers.
    workers: usize,
    /// The cores that this process may use.
    cores: usize,
    /// Bytes of input and output below which the calling thread does a built-in operation itself.
    inline_below: u64,
    /// Threads of this process when it forked the zygote.
    caller_threads: usize,
    /// The addresses at which there was code when the zygote was forked; `None` without `/proc`.
    code: Option<Vec<Range<usize>>>,
}

/// What belongs to the thread that has the right to make a call.
struct State {
    table: WorkerTable,
    /// How long to look for the end of a call before sleeping.
    spin: SpinBudget,
    /// Memory for packed arguments, kept from call to call.
    words: Vec<u64>,
    /// Memory for the record of a job, kept from call to call.
    record: Vec<u64>,
}

impl State {
    fn new(table: WorkerTable, spin_time: Duration) -> Self {
        Self { table, spin: SpinBudget::new(spin_time), words: Vec::new(), record: Vec::new() }
    }
}

/// A call with a shorter deadline goes to the supervisor at once: while the caller looks at the
/// claim words it does not look at the clock of the call.
const SHORT_DEADLINE: Duration = Duration::from_millis(1);

impl Pool {
    /// A call with options of its own, which begin as those of the pool.
    ///
    /// ```
    /// use std::time::Duration;
    /// use rowfork::{Pool, Policy, SharedArray};
    ///
    /// let pool = Pool::builder().workers(2).build()?;
    /// let m = SharedArray::<f64, _>::zeros(None, (100, 3))?;
    /// let call = pool.call().deadline(Duration::from_secs(60)).policy(Policy::fill(0)).progress(|progress| {
    ///     assert!(progress.rows_done <= 100);
    /// });
    /// call.map_rows(&m, |row| row.sum())?;
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    #[must_use]
    pub fn call(&self) -> PoolCall<'_> {
        Executor::new(self.defaults.options(), Persistent(Arc::clone(self.inner())))
    }

    /// What the pool has done so far. Does not wait for a running call.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let inner = self.inner();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = match inner.state.try_lock() {
            // A forked copy of the process that made the pool must not read the zygote's messages.
            _ if inner.pid != std::process::id() => None,
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let table = state.map(|mut state| {
            state.table.look();
            (state.table.pids(), state.table.check().err())
        });
        let (worker_pids, broken) = table.unwrap_or_default();
        PoolStats {
            workers: inner.workers,
            calls: read(&inner.counters.calls),
            inline_calls: read(&inner.counters.inline_calls),
            hot_calls: read(&inner.counters.hot_calls),
            deaths: read(&inner.counters.deaths),
            waiting: inner.queue.len(),
            mapped_arrays: inner.mailboxes.n_mapped(),
            zygote_pid: inner.zygote_pid,
            worker_pids,
            broken: broken.map(|error| error.to_string()),
            recycled: read(&inner.counters.recycled),
            caller_threads: inner.caller_threads,
        }
    }

    fn inner(&self) -> &Arc<PoolInner> {
        &self.executor.mode().0
    }
}

impl Deref for Pool {
    type Target = Executor<'static, Persistent>;

    /// The operations, with the options of the pool.
    fn deref(&self) -> &Executor<'static, Persistent> {
        &self.executor
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.inner().workers)
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Persistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistent").field("workers", &self.0.workers).finish_non_exhaustive()
    }
}

impl Mode for Persistent {
    const COPIES_THE_CALLER: bool = false;
}

/// A kernel of no bytes (a closure without captures, a function by name) or a function pointer.
impl<K: Copy + 'static> KernelFor<Persistent> for K {
    const CODEC: Option<KernelCodec<K>> = Some(KernelCodec::AS_WORD);
}

impl Run for Persistent {
    fn caller_threads(&self) -> usize {
        self.0.caller_threads
    }

    fn workers_for(&self, options: &Options<'_>, n_blocks: usize) -> usize {
        options.workers.unwrap_or(self.0.workers).min(self.0.workers).min(n_blocks)
    }

    fn runs_inline(&self, bytes: u64) -> bool {
        bytes < self.0.inline_below
    }

    fn count_inline(&self) {
        count(&self.0.counters.inline_calls);
    }

    fn skips_length_checks(&self) -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        let (maker, here) = (self.0.pid, std::process::id());
        if maker == here {
            return Ok(());
        }
        Err(Error::PoolBroken {
            reason: format!("it belongs to process {maker}, of which this one ({here}) is a copy"),
        })
    }

    fn run<'s>(
        &self,
        options: &Options<'_>,
        call: &Call<'_>,
        _block_fn: &mut dyn FnMut() -> Result<Box<BlockFn<'s>>>,
        marshal: &mut dyn FnMut(&mut PackedArgs<'s>) -> EntryPoint,
    ) -> Result<Report> {
        let inner = &*self.0;
        let give_up = || {
            options.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
                || options.check_interrupt.as_ref().is_some_and(|check| check())
        };
        let _turn = match inner.queue.enter(&give_up) {
            Ok(turn) => turn,
            Err(Refusal::Inside) => return Err(Error::PoolReentered),
            Err(Refusal::GaveUp) => return gave_up(options, call),
        };
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.table.check()?;
        let mut args = PackedArgs::in_words(std::mem::take(&mut state.words));
        let entry = marshal(&mut args);
        inner.check_code(entry, &args)?;
        let ran = inner.run_turn(&mut state, options, call, entry, &args);
        state.words = args.into_words();
        ran
    }
}

impl PoolInner {
    /// Refuses functions that the workers do not have.
    ///
    /// A worker jumps to the address that it is given. A function that was loaded since the zygote
    /// was forked is not there, and a jump to its address would run something else.
    fn check_code(&self, entry: EntryPoint, args: &PackedArgs<'_>) -> Result<()> {
        for address in args.code().iter().copied().chain([entry as usize]) {
            if address as u64 == CAPTURES {
                return Err(Error::KernelCaptures);
            }
            // Without a list of code, only calls pass whose kernel has no address. The entry point,
            // which is rowfork's own, is let through.
            let is_known = |address| {
                self.code
                    .as_ref()
                    .is_some_and(|code| code.iter().any(|range| range.contains(&address)))
            };
            if !(is_known(address) || self.code.is_none() && address == entry as usize) {
                return Err(Error::KernelNotInZygote { address });
            }
        }
        Ok(())
    }

    /// One call, by the thread that has the right to make it. The steps are those of the table in
    /// `README.md`.
    fn run_turn(
        &self,
        state: &mut State,
        options: &Options<'_>,
        call: &Call<'_>,
        entry: EntryPoint,
        args: &PackedArgs<'_>,
    ) -> Result<Report> {
        let began = Instant::now();
        let number = count(&self.counters.calls);
        // Arguments that do not fit on the board are in the last segment.
        let long = long_args(args)?;
        let mut segments = args.segments().to_vec();
        segments.extend(long.as_ref().map(SharedArray::segment));
        if segments.len() > MAX_SEGMENTS {
            return Err(Error::TooManyArrays { asked: segments.len(), max: MAX_SEGMENTS });
        }
        let key =
            CallKey { nonce: RandomState::new().build_hasher().finish(), number: low_bits(number) };
        let job = Job {
            key,
            workers: call.workers,
            n_rows: call.blocks.n_rows(),
            block_rows: call.blocks.block_rows(),
            measure_memory: options.measure_memory,
            entry,
            n_segments: segments.len(),
            is_long: long.is_some(),
        };
        job.encode(
            &segment_refs(&segments, call),
            if long.is_some() { &[] } else { args.words() },
            &mut state.record,
        );
        let control = Control::in_pages(&self.control, call.blocks.len(), self.workers, key);
        self.board.clear();
        control.reset();
        let mut call_workers = CallWorkers {
            table: &mut state.table,
            board: &self.board,
            mailboxes: &self.mailboxes,
            control,
            blocks: &call.blocks,
            segments: &segments,
            record: &state.record,
            workers: call.workers,
            measure_memory: options.measure_memory,
            is_over: false,
        };
        call_workers.begin();
        self.see_through(&mut call_workers, &mut state.spin, options, call, began)
    }

    /// Looks for the end of a call for a while, if that is likely to pay. If the end does not come,
    /// or looking is not likely to pay, supervises the call.
    ///
    /// Looking pays if nothing but the claim words can end the call (no callback, no short
    /// deadline), if every worker is there, and if the caller takes no core away from them.
    fn see_through(
        &self,
        call_workers: &mut CallWorkers<'_>,
        spin: &mut SpinBudget,
        options: &Options<'_>,
        call: &Call<'_>,
        began: Instant,
    ) -> Result<Report> {
        let (control, looked) = (call_workers.control, Instant::now());
        let may_spin = options.has_no_callbacks()
            && options.deadline.is_none_or(|deadline| deadline >= SHORT_DEADLINE);
        let looks = may_spin
            && call_workers.live() == call.workers
            && (call.blocks.len() == 1 || call.workers < self.cores);
        if looks && spin.look_for(looked, || all_done(call, control)) {
            spin.learn(looked.elapsed());
            call_workers.is_over = true;
            count(&self.counters.hot_calls);
            return Ok(call.report(control, began.elapsed(), false));
        }
        let ran = supervisor::supervise(options, call, control, call_workers, began);
        spin.learn(looked.elapsed());
        ran
    }
}

/// A segment with the packed arguments, if they are too long for the board. They count as too long
/// when they would not fit beside the most segments that a call may have.
fn long_args(args: &PackedArgs<'_>) -> Result<Option<SharedArray<u64, Ix1>>> {
    let is_long = args.words().len() + MAX_SEGMENTS + job::HEAD_WORDS > RECORD_WORDS;
    is_long.then(|| SharedArray::copy_from(None, &ArrayView1::from(args.words()))).transpose()
}

/// The segments as workers are to map them.
fn segment_refs(segments: &[&Segment], call: &Call<'_>) -> Vec<SegmentRef> {
    let is_writable = |id| call.writable.iter().any(|segment| segment.id() == id);
    segments
        .iter()
        .map(|segment| SegmentRef { id: segment.id(), writable: is_writable(segment.id()) })
        .collect()
}

/// Whether every block is done. Any other state of a block, a corrupt word included, is for the
/// supervisor to judge.
fn all_done(call: &Call<'_>, control: Control<'_>) -> bool {
    let claims = control.claims(call.blocks.len());
    let is_done = |index: usize| {
        let rows = call.blocks.get(index).map_or(0..0, |block| block.rows());
        matches!(claims.state(index, digest(index, &rows, std::iter::empty())), ClaimState::Done(_))
    };
    (0..call.blocks.len()).rev().all(is_done)
}

/// A call that was cancelled before it could begin.
fn gave_up(options: &Options<'_>, call: &Call<'_>) -> Result<Report> {
    let n_rows = call.blocks.n_rows();
    if !options.fills() || call.last_step_since.is_some() {
        return Err(Error::Cancelled { rows_done: 0, rows_total: n_rows });
    }
    let missing_rows = std::iter::once(0..n_rows).collect();
    Ok(Report {
        missing_rows,
        ended_early: Some(EarlyEnd::Cancelled),
        ..call.report_without_workers()
    })
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn low_bits(number: u64) -> u32 {
    number as u32
}

impl Drop for PoolInner {
    /// Ends the workers and the zygote. In a forked child of the process that made the pool they
    /// are not its own to end.
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.state.get_mut().unwrap_or_else(PoisonError::into_inner).table.leave();
        }
    }
}
