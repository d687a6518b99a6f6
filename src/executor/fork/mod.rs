//! Fork mode, the executor for one call: workers are forked when the call begins and are gone when
//! it ends.
//!
//! `rows/run.rs` hands each call to `Run::run` below. What the processes agree on is in
//! `engine/control/README.md`. The calling process's side of a call is `engine/supervisor.rs`, a
//! worker's is `engine/worker/`. This file forks, and decides nothing about deaths.
//!
//! # Safety
//! There is one `unsafe` call, the fork. The child runs [`worker::live`] and nothing else, which
//! upholds what `fork` asks.
#![allow(unsafe_code, reason = "forks")]

mod children;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::time::{Duration, Instant};

use self::children::{ForkedChildren, Spawn};
use crate::engine::args::PackedArgs;
use crate::engine::call::Call;
use crate::engine::control::{CallKey, Control, Message, MessageKind, Owner};
use crate::engine::options::Options;
use crate::engine::report::Report;
use crate::engine::supervisor;
use crate::engine::worker::{self, BlockFn, Work};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::executor::mode::sealed::Run;
use crate::executor::mode::{EntryPoint, KernelCodec, KernelFor, Mode};
use crate::segment::Segment;
use crate::segment::registry;
use crate::sys::futex;
use crate::sys::process::{self, ChildFd, Side};
use crate::sys::procfs;
use crate::sys::shared::SharedPages;

/// Calls whose workers are forked for that one call. Made by [`fork()`].
pub type Fork<'a> = Executor<'a, PerCall>;

/// Workers that are forked for a call, and are gone when it ends.
#[derive(Debug, Clone, Copy)]
pub struct PerCall(());

/// Calls whose workers are forked for that one call: the kernel may be any closure, with any
/// captures, since a forked process has a copy (copy-on-write) of everything.
///
/// A call costs some 0.4 ms, 0.1 ms more for each further worker, and 36 ms more for each GiB of
/// *private* memory that the calling process holds in small pages (the kernel copies page tables);
/// memory in [`SharedArray`](crate::SharedArray)s costs nothing.
///
/// # Fork safety
/// A worker is a copy of the calling *thread* alone. Locks that other threads held at that instant
/// stay locked in it for ever: a kernel should not print, log, use a rayon or tokio pool of the
/// caller, or take a lock that other threads use. Arithmetic, allocation, and threads of the
/// kernel's own are fine. rowfork's own code in the worker takes no lock. It allocates only for
/// arrays of dynamic dimension (`IxDyn`) with more than four axes, whose shapes ndarray allocates.
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
    Executor::new(Options::default(), PerCall(()))
}

impl Mode for PerCall {
    const COPIES_THE_CALLER: bool = true;
}

/// A forked worker has a copy of everything, so any kernel will do.
impl<K> KernelFor<PerCall> for K {
    const CODEC: Option<KernelCodec<K>> = None;
}

impl Run for PerCall {
    fn caller_threads(&self) -> usize {
        procfs::thread_count()
    }

    fn workers_for(&self, options: &Options<'_>, n_blocks: usize) -> usize {
        options.workers.unwrap_or_else(process::available_cores).min(n_blocks)
    }

    fn run<'s>(
        &self,
        options: &Options<'_>,
        call: &Call<'_>,
        block_fn: &mut dyn FnMut() -> Result<Box<BlockFn<'s>>>,
        _marshal: &mut dyn FnMut(&mut PackedArgs<'s>) -> EntryPoint,
    ) -> Result<Report> {
        let began = Instant::now();
        let body = block_fn()?;
        let (n_blocks, n_workers) = (call.blocks.len(), call.workers);
        let pages =
            SharedPages::new(Control::bytes(n_blocks, n_workers)).map_err(|cause| Error::Os {
                action: "map",
                subject: format!("the control block for {n_blocks} blocks and {n_workers} workers"),
                cause,
            })?;
        worker::install_panic_hook();
        let key = CallKey { nonce: RandomState::new().build_hasher().finish(), number: 0 };
        let control = Control::in_pages(&pages, n_blocks, n_workers, key);
        control.reset();
        let source =
            ForkHere { call, control, body: &*body, measure_memory: options.measure_memory };
        supervisor::supervise(
            options,
            call,
            control,
            &mut ForkedChildren::new(n_workers, source),
            began,
        )
    }
}

/// How long a worker may take to leave that the caller could not watch, before it is killed.
const ABANDONED_CHILD_LIMIT: Duration = Duration::from_secs(2);

/// Forks the calling thread, whenever a slot needs a worker.
struct ForkHere<'c> {
    call: &'c Call<'c>,
    control: Control<'c>,
    body: &'c BlockFn<'c>,
    measure_memory: bool,
}

impl Spawn for ForkHere<'_> {
    fn spawn(&self, owner: Owner) -> Result<ChildFd> {
        let Self { call, control, body, measure_memory } = *self;
        let slot = &control.slots()[usize::from(owner.slot)];
        let parent = process::own_pid();
        // The lock is held across the fork. Until the child has its own copy of the address space,
        // no other thread may unmap a segment and map something else there, which the child would
        // then make read-only.
        let registry = registry::lock();
        let read_only = read_only_ranges(&registry, &call.writable);
        let work = Work { control, blocks: &call.blocks, run: body };
        // SAFETY: the child does nothing but `live`, which takes no lock and never returns. The
        // guard of the registry is the forking thread's, so the child may give back its copy.
        let pid = match unsafe { process::fork() }.map_err(Error::ForkFailed)? {
            Side::Child => {
                drop(registry);
                worker::live(&work, &read_only, measure_memory, parent, owner)
            }
            Side::Parent(pid) => pid,
        };
        drop(registry);
        // The child waits for `go`. If it ends before that (its setup fails), it stays a zombie and
        // keeps its pid, unless the host reaps children that are not its own.
        let opened = ChildFd::open(pid);
        futex::store_and_wake(&slot.go, if opened.is_ok() { worker::GO } else { worker::ABANDON });
        opened.map_err(|cause| {
            process::reap_by_pid(pid, ABANDONED_CHILD_LIMIT);
            match slot.message() {
                Some(Message { kind: MessageKind::Setup, text: message, .. }) => {
                    Error::WorkerSetup { message }
                }
                _ => Error::Os {
                    action: "open a pidfd for",
                    subject: format!("worker {pid}"),
                    cause,
                },
            }
        })
    }
}

/// The mappings that a worker must not write to.
fn read_only_ranges(registry: &registry::Guard, writable: &[&Segment]) -> Vec<Range<usize>> {
    let writes_to = |address| writable.iter().any(|segment| segment.address() == address);
    let read_only = registry.mappings().iter().filter(|mapping| !writes_to(mapping.address));
    read_only.map(registry::Mapping::range).collect()
}
