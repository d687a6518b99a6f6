//! [`PoolBuilder`]: the options of a new pool, and how it is made.
//!
//! [`PoolBuilder::build`] maps the shared memory, makes the sockets, forks the zygote and waits
//! until every worker is ready. What must be done before the fork is done here: the child may
//! neither allocate nor take a lock.
//!
//! # Safety
//! One fork: the child runs [`zygote::live`] and nothing else.
#![allow(unsafe_code, reason = "forks the zygote")]

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::defaults::Defaults;
use super::job_board::JobBoard;
use super::mailboxes::Mailboxes;
use super::queue::Queue;
use super::shared_state::PoolShared;
use super::worker::{NO_CALL, WorkerBuffers};
use super::worker_table::WorkerTable;
use super::zygote::{self, ForkedWorker};
use super::{Persistent, Pool, PoolInner, State};
use crate::engine::blocks::MAX_BLOCKS;
use crate::engine::control::{Control, MAX_WORKERS, Slot};
use crate::engine::decide::INIT_LIMIT;
use crate::engine::options::Options;
use crate::engine::policy::Policy;
use crate::engine::worker;
use crate::error::{DeathCause, Error, Result};
use crate::executor::Executor;
use crate::kernel::Kernels;
use crate::segment::registry;
use crate::segment::registry::Observer;
use crate::sys::channel::Channel;
use crate::sys::event::Event;
use crate::sys::process::{self, ChildFd, Side};
use crate::sys::shared::SharedPages;
use crate::sys::{code, procfs};

/// How long to look before going to sleep, unless said otherwise. It is about as long as it takes
/// to wake a sleeper; with much less the two sides would keep each other asleep.
const SPIN: Duration = Duration::from_micros(100);

/// How often to look whether workers are ready.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Below this many bytes the caller is quicker with a built-in operation than workers are. (For 1
/// MiB 2 workers take 61 us awake and 147 us when they have to be woken; the caller takes 44 and
/// 66. At 4 MiB they are level.)
const INLINE_BELOW: usize = 1 << 20;

/// Options for a new [`Pool`]. Made by [`Pool::builder`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use rowfork::{Policy, Pool};
///
/// let pool = Pool::builder()
///     .workers(2)
///     .stall_limit(Duration::from_secs(10))
///     .policy(Policy::fill(f64::NAN))
///     .init(|| { /* in each worker, before its first row: open a model, seed a generator */ })
///     .build()?;
/// assert_eq!(pool.stats().workers, 2);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[must_use]
pub struct PoolBuilder {
    workers: Option<usize>,
    spin_time: Duration,
    inline_below: usize,
    init: Box<dyn Fn() + Send + Sync>,
    calls_per_worker: Option<NonZeroU32>,
    defaults: Defaults,
}

impl Default for PoolBuilder {
    fn default() -> Self {
        let (workers, init, defaults) = (None, Box::new(|| {}), Defaults::default());
        Self {
            workers,
            spin_time: SPIN,
            inline_below: INLINE_BELOW,
            init,
            calls_per_worker: None,
            defaults,
        }
    }
}

impl Pool {
    /// A pool with one worker for each core that this process may use, and no limits.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Options for a new pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }
}

impl PoolBuilder {
    /// How many workers. Default: one for each core that this process may use (CPU affinity and
    /// cgroup quota respected).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The [deadline](Executor::deadline) of every call, unless the call says otherwise. The time
    /// begins when the call does, not while it waits for its turn.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.defaults.deadline = Some(deadline);
        self
    }

    /// The [stall limit](Executor::stall_limit) of every call, unless it says otherwise.
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.defaults.stall_limit = Some(limit);
        self
    }

    /// The [retries](Executor::retries) of every call, unless it says otherwise.
    pub fn retries(mut self, retries: u32) -> Self {
        self.defaults.retries = Some(retries);
        self
    }

    /// Whether calls are [guarded](Executor::guard), unless they say otherwise.
    pub fn guard(mut self, guard: bool) -> Self {
        self.defaults.guard = guard;
        self
    }

    /// The [policy](Executor::policy) of every call, unless it says otherwise.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.defaults.policy = policy;
        self
    }

    /// How long, at most, a worker without work and a caller that waits for the end look before
    /// they go to sleep. They look for less time while that does not pay. 100 us by default.
    ///
    /// Waking a sleeper costs some 5 to 100 us, and looking occupies a core. With 0 they sleep at
    /// once. As many workers look as there are cores but one. The caller looks when a call has one
    /// block, or when there are more cores than workers.
    pub fn spin_time(mut self, spin_time: Duration) -> Self {
        self.spin_time = spin_time;
        self
    }

    /// The calling thread itself does operations that run no code but rowfork's, where input and
    /// output together have less than this many bytes and no name. 1 MiB by default: two workers
    /// that have to be woken are as quick from 2 to 4 MiB on, and more workers from less on. With 0
    /// workers do all calls.
    ///
    /// Such a call does not wait for its turn, does not ask whether the pool is broken, and is not
    /// ended by a deadline. Workers do calls with a [token](Executor::cancel_token), a
    /// [check](Executor::check_interrupt), a [callback](Executor::progress) or [measured
    /// memory](Executor::measure_memory), whatever their size.
    pub fn inline_below(mut self, bytes: usize) -> Self {
        self.inline_below = bytes;
        self
    }

    /// A function that each worker calls before its first row, also a worker that takes the place
    /// of a dead one. It may capture anything, since a worker has a copy. It may take up to a
    /// minute: `build` waits for it, and later the workers that are ready do a call. If it panics
    /// or takes longer, `build` or a later call is [`WorkerSetup`](Error::WorkerSetup).
    pub fn init(mut self, init: impl Fn() + Send + Sync + 'static) -> Self {
        self.init = Box::new(init);
        self
    }

    /// Replaces each worker after this many calls, for kernels that leak. The new worker runs
    /// `init` like any other. Default: never; 0 is never, too. A call that finds a worker being
    /// replaced waits for it, some 0.5 ms.
    pub fn calls_per_worker(mut self, calls: u32) -> Self {
        self.calls_per_worker = NonZeroU32::new(calls);
        self
    }

    /// Makes the pool: forks the zygote, which forks the workers, and admits them. This takes a
    /// millisecond, 0.1 ms for each further worker, and once 36 ms for each GiB of private memory
    /// that the program holds in small pages.
    ///
    /// # Errors
    /// [`ZeroWorkers`](Error::ZeroWorkers), [`TooManyWorkers`](Error::TooManyWorkers);
    /// [`InsideWorker`](Error::InsideWorker) in a worker; [`ForkFailed`](Error::ForkFailed),
    /// [`Os`](Error::Os) where the system gives no process, descriptor or memory;
    /// [`WorkerSetup`](Error::WorkerSetup) if `init` panics or takes longer than a minute;
    /// [`PoolBroken`](Error::PoolBroken) if somebody kills the zygote at once.
    pub fn build(self) -> Result<Pool> {
        Options { workers: self.workers, ..self.defaults.options() }.check()?;
        let workers = self.workers.unwrap_or_else(process::available_cores).min(MAX_WORKERS);
        let (cores, caller_threads) = (process::available_cores(), procfs::thread_count());
        // The kernels are chosen and the panic hook is installed before the fork, since both are
        // behind locks.
        Kernels::get();
        worker::install_panic_hook();
        let (resources, child_ends) = resources(workers)?;
        let code = code::executable_ranges();
        let zygote = fork_zygote(&self.shared(&resources, &child_ends, cores)?)?;
        drop(child_ends);
        let PoolResources { board, control, wakeup, channel, channels } = resources;
        board.keep_from_children();
        control.keep_from_children();
        let mailboxes = Arc::new(Mailboxes::new(Arc::clone(&board), channels));
        let observer: Weak<dyn Observer> = Arc::downgrade(&mailboxes) as Weak<dyn Observer>;
        registry::observe(observer);
        let counters = Arc::new(Counters::default());
        let zygote_pid = zygote.pid();
        let parties = (Arc::clone(&board), Arc::clone(&mailboxes), wakeup);
        let mut table = WorkerTable::new(zygote, channel, parties, Arc::clone(&counters), workers);
        let all_ready = admit_all(&mut table, Control::in_pages(&control, 0, workers, NO_CALL));
        let inner = PoolInner {
            queue: Queue::default(),
            state: Mutex::new(State::new(table, self.spin_time)),
            board,
            mailboxes,
            control,
            counters,
            pid: std::process::id(),
            zygote_pid,
            workers,
            cores,
            inline_below: self.inline_below as u64,
            caller_threads,
            code,
        };
        let executor = Executor::new(self.defaults.options(), Persistent(Arc::new(inner)));
        all_ready.map(|()| Pool { executor, defaults: self.defaults }) // dropped, it ends whom it has
    }

    /// What the zygote and its workers get by the fork.
    fn shared<'n>(
        &'n self,
        resources: &'n PoolResources,
        child_ends: &'n ChildEnds,
        cores: usize,
    ) -> Result<PoolShared<'n>> {
        let caller = process::own_pid();
        Ok(PoolShared {
            board: &resources.board,
            control: &resources.control,
            wakeup: &resources.wakeup,
            channel: &child_ends.channel,
            worker_channels: &child_ends.worker_channels,
            caller,
            caller_pidfd: process::open_pidfd(caller)
                .map_err(os("open a pidfd for", "this process"))?,
            n_spinning: cores.saturating_sub(1).max(1),
            spin: self.spin_time,
            init: &*self.init,
            calls_per_worker: self.calls_per_worker,
        })
    }
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("workers", &self.workers)
            .field("spin_time", &self.spin_time)
            .field("inline_below", &self.inline_below)
            .field("calls_per_worker", &self.calls_per_worker)
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}

/// The shared memory, the wakeup, and the caller's ends of the sockets.
struct PoolResources {
    board: Arc<JobBoard>,
    /// The pages of the control block, for the most blocks that a call may have.
    control: SharedPages,
    wakeup: Arc<Event>,
    /// To the zygote.
    channel: Channel,
    /// To the workers, one per slot.
    channels: Vec<Channel>,
}

/// The other ends of the sockets: the zygote's and the workers'. The caller closes them after the
/// fork, so that it sees the zygote's end as the channel's.
struct ChildEnds {
    channel: Channel,
    worker_channels: Vec<Channel>,
}

/// What a pool of this many workers needs.
fn resources(workers: usize) -> Result<(PoolResources, ChildEnds)> {
    let board = JobBoard::new(workers).map_err(os("map", "the board of a pool"))?;
    let control = SharedPages::new(Control::bytes(MAX_BLOCKS, workers))
        .map_err(os("map", "the control block of a pool"))?;
    let wakeup = Event::new().map_err(os("make", "an eventfd for a pool"))?;
    let (channel, zygotes_end) = Channel::pair().map_err(os("make", "the channel of a pool"))?;
    let pairs = (0..workers).map(|_| Channel::pair()).collect::<io::Result<Vec<_>>>();
    let pairs = pairs.map_err(os("make", "a channel for each worker of a pool"))?;
    let (channels, worker_channels) = pairs.into_iter().unzip();
    let resources = PoolResources {
        board: Arc::new(board),
        control,
        wakeup: Arc::new(wakeup),
        channel,
        channels,
    };
    Ok((resources, ChildEnds { channel: zygotes_end, worker_channels }))
}

fn os(action: &'static str, subject: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Os { action, subject: subject.to_owned(), cause }
}

/// Admits a worker to every slot, and waits until all are ready.
fn admit_all(table: &mut WorkerTable, control: Control<'_>) -> Result<()> {
    for (index, slot) in control.slots().iter().enumerate() {
        slot.clear();
        table.admit(table.owner(index), true, |_| Ok(true))?;
    }
    wait_until_ready(table, control)
}

/// Waits until every worker has run the init function. A worker that dies before that is an error.
fn wait_until_ready(table: &mut WorkerTable, control: Control<'_>) -> Result<()> {
    let limit = Instant::now() + INIT_LIMIT;
    while !control.slots().iter().all(Slot::is_ready) {
        if Instant::now() >= limit {
            let message = format!("the pool's init function has not returned for {INIT_LIMIT:?}");
            return Err(Error::WorkerSetup { message });
        }
        table.sleep(None, Instant::now() + READY_POLL_INTERVAL).map_err(Error::of_watching)?;
        table.listen();
        table.check()?;
        if let Some((owner, exit)) = table.take_ended(control.slots().len()).pop() {
            let told =
                control.slots()[usize::from(owner.slot)].message().map(|message| message.text);
            let how = DeathCause::from(exit);
            let message = told.unwrap_or_else(|| {
                format!("a worker of the pool {how} while its init function ran")
            });
            return Err(Error::WorkerSetup { message });
        }
    }
    Ok(())
}

/// Forks the zygote. Everything that it needs was allocated before.
fn fork_zygote(shared: &PoolShared<'_>) -> Result<ChildFd> {
    let (mut workers, buffers) =
        (vec![ForkedWorker::EMPTY; shared.worker_channels.len()], WorkerBuffers::new());
    // The lock is held across the fork. Otherwise another thread could unmap a segment and map
    // something else in its place before the child has its copy.
    let registry = registry::lock();
    let inherited: Vec<Range<usize>> =
        registry.mappings().iter().map(registry::Mapping::range).collect();
    // SAFETY: the child does nothing but `live`, which takes no lock and never returns.
    let pid = match unsafe { process::fork() }.map_err(Error::ForkFailed)? {
        Side::Child => {
            drop(registry);
            zygote::live(shared, &mut workers, buffers, &inherited)
        }
        Side::Parent(pid) => pid,
    };
    drop(registry);
    ChildFd::open(pid).map_err(|cause| {
        process::reap_by_pid(pid, Duration::ZERO);
        Error::Os { action: "open a pidfd for", subject: format!("the zygote {pid}"), cause }
    })
}
