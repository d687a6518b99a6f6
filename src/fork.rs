//! Fork mode, the executor for one call: workers are forked when the call begins and are gone when it ends.
//!
//! The public operations are in `rows`; they end in [`Fork::run`]. What the processes agree on is in `control/README.md`;
//! what to do about a death is decided in `supervise`; what a worker does is in `worker`.
//!
//! # Safety
//! One `unsafe` call, the fork: the child runs [`worker::live`] and nothing else, which upholds what `fork` asks.
#![allow(unsafe_code, reason = "forks")]

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::blocks::{Cut, RowBlocks};
use crate::control::{ClaimState, Control, Fault, MAX_WORKERS, Message, MessageKind, Owner, Slot};
use crate::crew::Crew;
use crate::error::{DeathCause, Error, Result};
use crate::interrupted::interrupted;
use crate::report::{BlockTimes, Progress, Report, WorkerDeath, WorkerReport};
use crate::segment::{Pages, registry};
use crate::supervise::{Action, Death, Ledger, Snapshot, believable, decide};
use crate::sys::futex;
use crate::sys::process::{self, ChildFd, Exit, Side};
use crate::sys::shared::SharedPages;
use crate::worker::{self, BlockFn, Job};

/// How often the supervisor looks up from its sleep: for progress, and for what no pidfd tells.
const TICK: Duration = Duration::from_millis(100);

/// How long a worker may take to leave by itself once everything is done.
const LEAVE_GRACE: Duration = Duration::from_millis(100);

/// The same where it has its page tables to walk first.
const MEASURE_GRACE: Duration = Duration::from_secs(10);

type ProgressFn<'a> = dyn Fn(&Progress) + 'a;

/// Options for calls whose workers are forked for that one call. Made by [`fork()`].
#[derive(Default)]
pub struct Fork<'a> {
    workers: Option<usize>,
    block_rows: Option<usize>,
    progress: Option<Box<ProgressFn<'a>>>,
    measure_memory: bool,
}

/// What an operation asks of the executor.
pub(crate) struct Call<'a> {
    pub(crate) n_rows: usize,
    pub(crate) cut: Cut,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) input_pages: Option<Pages>,
    pub(crate) output_pages: Option<Pages>,
    /// The address of the output's mapping, the one segment that workers may write to.
    pub(crate) output_mapping: usize,
    /// The output is the input, so that a block that was begun cannot be run again.
    pub(crate) in_place: bool,
    /// A part of a larger call, which shows its own progress.
    pub(crate) silent: bool,
    pub(crate) run: &'a BlockFn<'a>,
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
        self.workers = Some(workers);
        self
    }

    /// Rows per block: the unit of work, of re-running and of progress. The default follows from the shape and rarely
    /// needs a change; it is enlarged where it would make more than 4,096 blocks. Changes no bit of any result.
    #[must_use]
    pub fn block_rows(mut self, block_rows: usize) -> Self {
        self.block_rows = Some(block_rows);
        self
    }

    /// Calls `callback` in the calling thread while the workers run: at most ten times a second, and once when all rows are
    /// done. A panic in it ends the call and its workers (and leaves no account of the rows of an update in place).
    #[must_use]
    pub fn progress(mut self, callback: impl Fn(&Progress) + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Has every worker measure its private memory and its share of the shared at the end, for the report. Costs a walk
    /// over its page tables, a few milliseconds per GiB of small pages; the call waits up to 10 s for
    /// workers that are at it.
    #[must_use]
    pub fn measure_memory(mut self, measure: bool) -> Self {
        self.measure_memory = measure;
        self
    }

    /// Runs a call: from the first fork to the last reap.
    pub(crate) fn run(&self, call: &Call<'_>) -> Result<Report> {
        let began = Instant::now();
        self.check()?;
        let workers = self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let blocks = call.cut.blocks(call.n_rows, self.block_rows);
        let workers = workers.min(blocks.len());
        let mut supervisor = Supervisor::new(self, call, blocks, workers, began)?;
        match supervisor.run() {
            Ok(()) => Ok(supervisor.report()),
            Err(error) if call.in_place => Err(supervisor.interrupted(error)),
            Err(error) => Err(error),
        }
    }

    /// Refuses options that make no sense, before anything is allocated.
    pub(crate) fn check(&self) -> Result<()> {
        if process::is_forked_child() {
            return Err(Error::InsideWorker);
        }
        match (self.workers, self.block_rows) {
            (Some(0), _) => Err(Error::ZeroWorkers),
            (Some(asked), _) if asked > MAX_WORKERS => Err(Error::TooManyWorkers { asked, max: MAX_WORKERS }),
            (_, Some(0)) => Err(Error::ZeroBlockRows),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Fork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fork")
            .field("workers", &self.workers)
            .field("block_rows", &self.block_rows)
            .field("progress", &self.progress.is_some())
            .field("measure_memory", &self.measure_memory)
            .finish()
    }
}

/// The calling process's side of one call.
struct Supervisor<'a> {
    options: &'a Fork<'a>,
    call: &'a Call<'a>,
    blocks: RowBlocks,
    control: Control,
    ledger: Ledger,
    crew: Crew,
    deaths: Vec<WorkerDeath>,
    began: Instant,
    next_progress: Instant,
    rows_shown: usize,
}

impl<'a> Supervisor<'a> {
    fn new(
        options: &'a Fork<'a>,
        call: &'a Call<'a>,
        blocks: RowBlocks,
        workers: usize,
        began: Instant,
    ) -> Result<Self> {
        let nonce = RandomState::new().build_hasher().finish();
        let pages = SharedPages::new(Control::bytes(blocks.len(), workers)).map_err(|source| Error::Os {
            action: "map",
            subject: format!("the control block for {} blocks and {workers} workers", blocks.len()),
            source,
        })?;
        worker::install_panic_hook();
        let ledger = Ledger::new(blocks.clone(), workers);
        Ok(Self {
            options,
            call,
            ledger: if call.in_place { ledger.in_place() } else { ledger },
            control: Control::in_pages(pages, blocks.len(), workers, nonce),
            blocks,
            crew: Crew::new(workers),
            deaths: Vec::new(),
            began,
            next_progress: began + TICK,
            rows_shown: 0,
        })
    }

    /// Looks, decides, acts, sleeps; until the decision is to finish.
    fn run(&mut self) -> Result<()> {
        let mut deaths = Vec::new();
        loop {
            let states = self.control.claims().states();
            let snapshot = Snapshot { blocks: &states, deaths: &deaths, live: self.crew.live() };
            for action in decide(&mut self.ledger, &snapshot) {
                if let Some(verdict) = self.perform(action)? {
                    return verdict;
                }
            }
            self.show_progress(&states);
            deaths = self.wait_for_deaths()?;
        }
    }

    /// Performs one action; `Some` is the end of the call.
    fn perform(&mut self, action: Action) -> Result<Option<Result<()>>> {
        match action {
            Action::Free { block, owner } => {
                self.control.claims().free(block, owner);
                self.control.hand_back(block);
            }
            Action::Limit(limit) => self.control.set_limit(limit),
            Action::Restart => {
                self.crew.end(Instant::now());
                self.control.reset();
                self.spawn(self.crew.size())?;
            }
            Action::Spawn(n) => self.spawn(n)?,
            Action::Finish(verdict) => {
                let grace = match verdict {
                    Ok(()) if self.options.measure_memory => MEASURE_GRACE,
                    Ok(()) => LEAVE_GRACE,
                    Err(_) => Duration::ZERO,
                };
                self.crew.end(Instant::now() + grace);
                if verdict.is_ok() {
                    self.show_end();
                }
                return Ok(Some(verdict));
            }
        }
        Ok(None)
    }

    /// Forks up to `n` workers into empty slots. Fewer are enough, none is an error.
    fn spawn(&mut self, n: usize) -> Result<()> {
        // A stray store may have changed the workers' copy.
        self.control.set_limit(self.ledger.limit());
        for _ in 0..n {
            let Some(owner) = self.crew.next_owner() else { break };
            // While the later ones are forked the first may have finished everything.
            if self.crew.live() > 0 && !self.control.claims().any_free(self.ledger.limit()) {
                break;
            }
            match self.fork_worker(owner) {
                Ok(child) => self.crew.admit(owner, child),
                Err(_) if self.crew.live() > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fork_worker(&self, owner: Owner) -> Result<ChildFd> {
        let slot = &self.control.slots()[usize::from(owner.slot)];
        slot.clear();
        let parent = process::own_pid();
        // Held across the fork: until the child has its own copy of the address space, no other thread may unmap a
        // segment and map something else there, which the child would then make read-only.
        let registry = registry::lock();
        let read_only = read_only_ranges(&registry, self.call.output_mapping);
        let job = Job {
            control: &self.control,
            blocks: &self.blocks,
            run: self.call.run,
            read_only: &read_only,
            measure_memory: self.options.measure_memory,
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
            process::reap_by_pid(pid);
            match slot.message() {
                Some(Message { kind: MessageKind::Setup, text: message, .. }) => Error::WorkerSetup { message },
                _ => Error::Os { action: "open a pidfd for", subject: format!("worker {pid}"), source },
            }
        })
    }

    /// Sleeps until a worker ends or the next tick; reaps, and says how each ended.
    fn wait_for_deaths(&mut self) -> Result<Vec<Death>> {
        let ended = self.crew.reap_ended(Instant::now() + TICK).map_err(watch_error)?;
        let states = self.control.claims().states();
        Ok(ended.into_iter().map(|(owner, exit)| self.death_of(owner, exit, &states)).collect())
    }

    fn death_of(&mut self, owner: Owner, exit: Exit, states: &[ClaimState]) -> Death {
        let slot = &self.control.slots()[usize::from(owner.slot)];
        let cause = self.cause_of(exit, slot.fault());
        let held = states.iter().position(|state| *state == ClaimState::Claimed(owner));
        let message = slot.message().filter(|message| worker::vouches_for(exit, message.kind));
        let death = Death { owner, cause, row: slot.row(), message };
        // Without a block, a status of 0 or one that somebody else has taken is that of a worker that was done.
        let undone = held.is_some() || !matches!(exit, Exit::Code(0) | Exit::Unknown);
        if undone && believable(&self.ledger, states, &death).is_none() {
            let rows = held.and_then(|block| self.blocks.get(block)).map(|block| block.rows());
            self.deaths.push(WorkerDeath { worker: owner.slot.into(), cause: death.cause.clone(), rows });
        }
        death
    }

    fn cause_of(&self, exit: Exit, fault: Option<Fault>) -> DeathCause {
        match (exit, fault) {
            (Exit::Code(code), _) => DeathCause::Exited(code),
            (Exit::Unknown, _) => DeathCause::Unknown,
            (Exit::Signal(signal), Some(Fault { signal: noted, address })) if noted == signal => {
                // SIGBUS there is a page that is gone, not one that may not be written.
                let read_only_segment = (signal == libc::SIGSEGV).then(|| self.read_only_segment(address)).flatten();
                DeathCause::MemoryFault { signal, address, read_only_segment }
            }
            (Exit::Signal(signal), _) => DeathCause::Signalled(signal),
        }
    }

    /// What error messages call the segment that holds `address`, if workers may not write to it.
    fn read_only_segment(&self, address: usize) -> Option<String> {
        let registry = registry::lock();
        let mapping = registry.mappings().iter().find(|mapping| mapping.range().contains(&address))?;
        (mapping.address != self.call.output_mapping).then(|| (*mapping.label).to_owned())
    }

    fn progress_callback(&self) -> Option<&'a ProgressFn<'a>> {
        self.options.progress.as_deref().filter(|_| !self.call.silent)
    }

    fn show_progress(&mut self, states: &[ClaimState]) {
        let Some(callback) = self.progress_callback() else { return };
        let now = Instant::now();
        if now < self.next_progress {
            return;
        }
        self.next_progress = now + TICK;
        self.rows_shown = self.rows_shown.max(self.rows_done(states));
        callback(&Progress {
            rows_done: self.rows_shown,
            rows_total: self.blocks.n_rows(),
            elapsed: now.duration_since(self.began),
        });
    }

    fn show_end(&self) {
        if let Some(callback) = self.progress_callback() {
            let rows = self.blocks.n_rows();
            callback(&Progress { rows_done: rows, rows_total: rows, elapsed: self.began.elapsed() });
        }
    }

    /// Rows of finished blocks, and of claimed blocks the rows before the one that the worker is at.
    fn rows_done(&self, states: &[ClaimState]) -> usize {
        let rows_of = |(index, state): (usize, &ClaimState)| {
            let rows = self.blocks.get(index).map_or(0..0, |block| block.rows());
            match state {
                ClaimState::Done => rows.len(),
                ClaimState::Claimed(owner) => {
                    let slot = self.control.slots().get(usize::from(owner.slot));
                    slot.map(Slot::row).filter(|row| rows.contains(row)).map_or(0, |row| row - rows.start)
                }
                ClaimState::Free | ClaimState::Corrupt => 0,
            }
        };
        states.iter().enumerate().map(rows_of).sum()
    }

    /// What has become of the rows of a call in place that has failed: no worker touches them any more.
    fn interrupted(mut self, source: Error) -> Error {
        self.crew.end(Instant::now());
        let slots = self.control.slots();
        let row_at = |block: usize, owner: Owner| {
            self.ledger.torn_at(block).or_else(|| slots.get(usize::from(owner.slot)).map(Slot::row))
        };
        interrupted(&self.blocks, &self.control.claims().states(), row_at, source)
    }

    fn report(self) -> Report {
        let elapsed = self.began.elapsed();
        let tallies: Vec<_> = self.control.slots().iter().map(|slot| &slot.tally).collect();
        let rows = self.blocks.n_rows();
        Report {
            rows,
            blocks: self.blocks.len(),
            elapsed,
            block_times: BlockTimes::from_tallies(&tallies),
            workers: tallies
                .iter()
                .map(|tally| WorkerReport::from_tally(tally, &self.blocks, elapsed, self.options.measure_memory))
                .collect(),
            deaths: self.deaths,
            rerun_rows: self.ledger.rerun_rows,
            bytes_read: self.call.bytes_read,
            bytes_written: self.call.bytes_written,
            input_pages: self.call.input_pages,
            output_pages: self.call.output_pages,
        }
    }
}

/// The mappings that a worker must not write to.
fn read_only_ranges(registry: &registry::Guard, output: usize) -> Vec<Range<usize>> {
    registry.mappings().iter().filter(|mapping| mapping.address != output).map(registry::Mapping::range).collect()
}

fn watch_error(source: std::io::Error) -> Error {
    Error::Os { action: "watch", subject: "the workers".to_owned(), source }
}
