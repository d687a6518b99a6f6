//! A worker's whole life, from the fork to `_exit`: put the process in order, wait for the word to go, then claim, run,
//! publish until nothing is left.
//!
//! Called by the executors in the child of a fork. Until the kernel runs, and around it, this file takes no lock and
//! allocates nothing: the parent's other threads do not exist here, and a lock that one of them held is held for ever.
//!
//! # Safety
//! A process-wide pointer to the worker's slot serves the panic hook and the fault handler. It is null in every process
//! but a worker, and a worker never unmaps its control block.
#![allow(unsafe_code, reason = "a slot pointer for the panic hook, a fault handler, mprotect")]

use std::any::Any;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::blocks::RowBlocks;
use crate::control::{Claim, Control, Fault, MessageKind, Owner, Slot, Station};
use crate::failpoints;
use crate::sys::process::{Exit, Pid, die_with, exit_now};
use crate::sys::{fpu, futex, procfs, shared, signal};

/// Runs the kernel on the rows of a won block and writes their output. On `Break` it has come to nothing, and the slot
/// says why.
pub(crate) type BlockFn<'a> = dyn Fn(&mut Claim<'_>, &Station<'_>) -> ControlFlow<()> + 'a;

/// What a worker needs to know; lives in the parent's memory and reaches the child by the fork.
pub(crate) struct Job<'a> {
    pub(crate) control: &'a Control,
    pub(crate) blocks: &'a RowBlocks,
    pub(crate) run: &'a BlockFn<'a>,
    /// Address ranges that this worker must not write to: every segment but the output of the call, or that, too.
    pub(crate) read_only: &'a [Range<usize>],
    /// Measure private memory at the end, at the cost of a walk over the page tables.
    pub(crate) measure_memory: bool,
}

/// Values of the slot's `go` word.
pub(crate) const WAIT: u32 = 0;
pub(crate) const GO: u32 = 1;
/// The parent could not watch this worker, so it is not wanted.
pub(crate) const ABANDON: u32 = 2;

/// Nothing left to claim.
const EXIT_FINISHED: i32 = 0;
/// The kernel failed; the slot says why. (101 is what a panicking Rust program exits with.)
const EXIT_KERNEL_FAILED: i32 = 101;
/// The parent was gone before this worker could be tied to it, or had no use for it: nobody reads this.
const EXIT_UNWANTED: i32 = 102;
/// A system call failed without which no kernel may run here, or its values find no way out; the slot says which.
const EXIT_SETUP_FAILED: i32 = 103;

/// Whether a message of this kind may be believed of a worker that ended so: a stray store, or a panic that the kernel
/// caught, is no failure.
pub(crate) fn vouches_for(exit: Exit, kind: MessageKind) -> bool {
    match kind {
        _ if failpoints::is_on("no end vouches") => true,
        MessageKind::PanicDraft => false,
        MessageKind::Panic => {
            matches!(exit, Exit::Code(EXIT_KERNEL_FAILED) | Exit::Signal(libc::SIGABRT) | Exit::Unknown)
        }
        MessageKind::KernelError => matches!(exit, Exit::Code(EXIT_KERNEL_FAILED) | Exit::Unknown),
        MessageKind::Setup => matches!(exit, Exit::Code(EXIT_SETUP_FAILED) | Exit::Unknown),
    }
}

/// This process's slot; null in every process that is not a worker.
static OWN_SLOT: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

fn own_slot() -> Option<&'static Slot> {
    // SAFETY: null, or set in `live` to a slot that stays mapped until this process ends; all of it is atomics.
    unsafe { OWN_SLOT.load(Ordering::Relaxed).as_ref() }
}

/// The worker's life. Never returns, and never unwinds into the parent's frames.
pub(crate) fn live(job: &Job<'_>, parent: Pid, owner: Owner) -> ! {
    let slot = &job.control.slots()[usize::from(owner.slot)];
    if failpoints::is_on("workers are late to be tied") {
        std::thread::sleep(Duration::from_secs(1));
    }
    if !failpoints::is_on("outlive the caller") {
        match die_with(parent) {
            Ok(true) => {}
            Ok(false) => exit_now(EXIT_UNWANTED),
            Err(error) => fail_setup(slot, "prctl(PR_SET_PDEATHSIG)", &error),
        }
    }
    OWN_SLOT.store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
    prepare(job, slot);
    slot.set_ready();
    futex::wait_while(&slot.go, WAIT);
    if slot.go.load(Ordering::Relaxed) != GO {
        exit_now(EXIT_UNWANTED);
    }
    signal::unblock_all();
    let code = end_of_work(catch_unwind(AssertUnwindSafe(|| work(job, slot, owner))), slot);
    if job.measure_memory {
        let memory = procfs::own_memory().unwrap_or_default();
        slot.tally.note_memory(memory.private, memory.proportional);
    }
    exit_now(code)
}

/// Puts the process in order.
fn prepare(job: &Job<'_>, slot: &Slot) {
    if !failpoints::is_on("keep signal handlers") {
        signal::reset_dispositions();
    }
    // SAFETY: `note_fault` only stores to atomics.
    unsafe { signal::handle_faults(note_fault) };
    if !failpoints::is_on("no oom score") {
        procfs::prefer_as_oom_victim();
    }
    for range in job.read_only.iter().filter(|_| !failpoints::is_on("writable segments")) {
        // SAFETY: a whole mapping of a segment, listed under the registry's lock, which was held across the fork; a
        // store to it from now on is a fault, which is the intention.
        if let Err(error) = unsafe { shared::make_read_only(range) } {
            fail_setup(slot, "mprotect of a segment", &error);
        }
    }
    if !failpoints::is_on("keep the fpu mode") {
        fpu::set_default();
    }
    hang_if_asked(slot);
}

/// For tests: hangs, in the first worker or in every one, as one does that waits for an inherited lock.
fn hang_if_asked(slot: &Slot) {
    let first = failpoints::is_on("first worker hangs at start") && slot.tally.starts() == 1;
    while first || failpoints::is_on("workers hang at start") {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// How the work has ended, as an exit code.
fn end_of_work(ended: std::thread::Result<ControlFlow<()>>, slot: &Slot) -> i32 {
    match ended {
        Ok(ControlFlow::Continue(())) => EXIT_FINISHED,
        Ok(ControlFlow::Break(())) if slot.has_message(MessageKind::Setup) => EXIT_SETUP_FAILED,
        Ok(ControlFlow::Break(())) => EXIT_KERNEL_FAILED,
        Err(payload) => {
            // The hook has drafted it already, unless the host has replaced our hook, or the kernel has resumed an
            // unwinding that it had caught.
            let text = panic_text(&*payload);
            if !slot.confirm_panic(text) {
                slot.leave_message(MessageKind::Panic, text, "");
            }
            // Its destructor is the user's, and could panic again.
            std::mem::forget(payload);
            EXIT_KERNEL_FAILED
        }
    }
}

fn fail_setup(slot: &Slot, what: &str, error: &std::io::Error) -> ! {
    // The number, not its text: looking that up takes a lock and allocates.
    slot.leave_message(MessageKind::Setup, format_args!("{what}: errno {}", error.raw_os_error().unwrap_or(0)), "");
    exit_now(EXIT_SETUP_FAILED)
}

/// Claims, runs, publishes, until there is nothing left or the kernel fails. A failed unit stays claimed.
fn work(job: &Job<'_>, slot: &Slot, owner: Owner) -> ControlFlow<()> {
    let mut last = Instant::now();
    let mut next = usize::MAX;
    while let Some(mut claim) = next_claim(job, owner, &mut next) {
        let rows = claim.block().rows();
        slot.set_row(rows.start);
        let station = job.control.station(owner.slot);
        (job.run)(&mut claim, &station)?;
        let done = station.digest(claim.block());
        claim.publish(done);
        let now = Instant::now();
        slot.tally.count_block(rows.len(), now.duration_since(last).as_nanos().try_into().unwrap_or(u64::MAX));
        last = now;
    }
    ControlFlow::Continue(())
}

/// Wins a unit: one that came back from a dead worker, else the block after the last, else wherever there is most to do, else
/// a piece of a block. `None` when nothing is free.
///
/// So every worker goes through a stretch of memory of its own from start to end: the processor's prefetch likes that, and
/// a huge page is mapped by one worker, where blocks dealt out in turn would have every worker map every page.
fn next_claim<'a>(job: &Job<'a>, owner: Owner, next: &mut usize) -> Option<Claim<'a>> {
    let claims = job.control.claims_now();
    let limit = job.control.limit();
    let claim = |index: usize| {
        let unit = job.control.unit(job.blocks, index).filter(|_| index < claims.len())?;
        if unit.rows().start < limit { claims.try_claim(unit, owner) } else { None }
    };
    if let Some(won) = job.control.take_returned().and_then(claim) {
        return Some(won);
    }
    let n_blocks = job.blocks.starting_before(limit);
    loop {
        if *next < n_blocks
            && let Some(won) = claim(*next)
        {
            *next += 1;
            return Some(won);
        }
        match claims.clear_way(n_blocks) {
            Some(start) => *next = start,
            None => return (job.blocks.len()..claims.len()).find_map(claim),
        }
    }
}

/// Installs the panic hook, once per process, in the parent: the child cannot, since the hook is behind a lock.
///
/// Everywhere but in a worker it calls the hook that was there before. In a worker it writes message and place into the
/// slot, so that they survive `panic = "abort"` too, and prints nothing: the caller gets a typed error.
///
/// Not while this thread unwinds (a call in a destructor): the hook cannot be changed then. Nor while another thread is stuck in
/// the hook that there is (in a write to a full pipe, say), behind whose lock the change waits: hence by a thread of its own, for
/// which the caller waits a while. Workers of such calls have the payload alone, without the place.
pub(crate) fn install_panic_hook() {
    static STATE: Mutex<HookState> = Mutex::new(HookState::Missing);
    static CHANGED: Condvar = Condvar::new();
    // Read before the lock, which would be written to: after a fork that is a page to copy, for every call.
    static NEVER_AGAIN: AtomicBool = AtomicBool::new(false);
    if std::thread::panicking() || NEVER_AGAIN.load(Ordering::Relaxed) {
        return;
    }
    let state = || STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let set = move |new: HookState| {
        *state() = new;
        CHANGED.notify_all();
    };
    let mut seen = state();
    if matches!(*seen, HookState::Installed | HookState::Stuck) {
        NEVER_AGAIN.store(true, Ordering::Relaxed);
        return;
    }
    if *seen == HookState::Missing {
        let helper = std::thread::Builder::new().name("rowfork panic hook".to_owned());
        let spawned = helper.spawn(move || {
            wrap_panic_hook();
            set(HookState::Installed);
        });
        if spawned.is_err() {
            return; // the next call may have a thread
        }
        *seen = HookState::Waiting;
    }
    let waiting = |state: &mut HookState| *state == HookState::Waiting;
    let (mut seen, _) = CHANGED.wait_timeout_while(seen, HOOK_WAIT, waiting).unwrap_or_else(PoisonError::into_inner);
    if *seen == HookState::Waiting {
        *seen = HookState::Stuck;
    }
}

/// How long a first call waits for the panic hook. It takes 50 us.
const HOOK_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HookState {
    Missing,
    Waiting,
    /// No call waits any more; it may yet be installed.
    Stuck,
    Installed,
}

fn wrap_panic_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| match own_slot() {
        Some(slot) => note_panic(slot, info),
        None => before(info),
    }));
}

/// What the runtime says when a panic cannot unwind any further, just before it aborts. It adds nothing to the panic that
/// led to it, but that one is now final.
const ABORTING: [&str; 2] = ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

fn note_panic(slot: &Slot, info: &PanicHookInfo<'_>) {
    let text = panic_text(info.payload());
    if ABORTING.contains(&text) && slot.confirm_panic("") {
        return;
    }
    match info.location() {
        Some(location) => slot.draft_panic(text, location),
        None => slot.draft_panic(text, ""),
    }
    if cfg!(panic = "abort") {
        slot.confirm_panic(text);
    }
}

fn note_fault(signal: i32, address: usize) {
    if let Some(slot) = own_slot() {
        slot.leave_fault(Fault { signal, address });
    }
}

/// A panic's payload as text.
fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a payload that is not a string")
}
