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
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
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
    pub(crate) control: Control<'a>,
    pub(crate) blocks: &'a RowBlocks,
    pub(crate) run: &'a BlockFn<'a>,
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

/// Where this process has mapped what the caller has at other addresses, for the fault handler: a fault is told by the caller's.
pub(crate) static ELSEWHERE: Elsewhere = Elsewhere([const { [const { AtomicUsize::new(0) }; 3] }; ELSEWHERE_MAX]);

const ELSEWHERE_MAX: usize = 256;

/// For each mapping where it starts and ends, and where it starts in the caller.
#[derive(Debug)]
pub(crate) struct Elsewhere([[AtomicUsize; 3]; ELSEWHERE_MAX]);

impl Elsewhere {
    /// One more mapping; more than there is room for are not told.
    pub(crate) fn add(&self, range: Range<usize>, caller_start: usize) {
        if let Some([start, end, caller]) = self.0.iter().find(|[_, end, _]| end.load(Ordering::Relaxed) == 0) {
            start.store(range.start, Ordering::Relaxed);
            caller.store(caller_start, Ordering::Relaxed);
            end.store(range.end, Ordering::Relaxed);
        }
    }

    /// A mapping is gone.
    pub(crate) fn remove(&self, address: usize) {
        let known = self.0.iter().find(|[start, ..]| start.load(Ordering::Relaxed) == address);
        known.into_iter().flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn to_caller(&self, address: usize) -> usize {
        let words = self.0.iter().map(|mapping| [0, 1, 2].map(|word: usize| mapping[word].load(Ordering::Relaxed)));
        let known = words.into_iter().find(|[start, end, _]| (*start..*end).contains(&address));
        known.map_or(address, |[start, _, caller]| address - start + caller)
    }
}

/// This process's slot; null in every process that is not a worker.
static OWN_SLOT: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

fn own_slot() -> Option<&'static Slot> {
    // SAFETY: null, or set in `live` to a slot that stays mapped until this process ends; all of it is atomics.
    unsafe { OWN_SLOT.load(Ordering::Relaxed).as_ref() }
}

/// The life of a worker that is forked for one call. Never returns, and never unwinds into the parent's frames.
///
/// `read_only` are address ranges that it must not write to: every segment but the output of the call, or that, too.
pub(crate) fn live(job: &Job<'_>, read_only: &[Range<usize>], measured: bool, parent: Pid, owner: Owner) -> ! {
    let slot = &job.control.slots()[usize::from(owner.slot)];
    if failpoints::is_on("workers are late to be tied") {
        std::thread::sleep(Duration::from_secs(1));
    }
    if let Err(error) = die_with_parent(parent) {
        fail_setup(slot, format_args!("prctl(PR_SET_PDEATHSIG): {}", errno(&error)));
    }
    take_slot(slot);
    put_process_in_order();
    for range in read_only.iter().filter(|_| !failpoints::is_on("writable segments")) {
        // SAFETY: a whole mapping of a segment, listed under the registry's lock, which was held across the fork; a
        // store to it from now on is a fault, which is the intention.
        if let Err(error) = unsafe { shared::make_read_only(range) } {
            fail_setup(slot, format_args!("mprotect of a segment: {}", errno(&error)));
        }
    }
    hang_if_asked(slot);
    slot.set_ready();
    futex::wait_while(&slot.go, WAIT);
    if slot.go.load(Ordering::Relaxed) != GO {
        exit_now(EXIT_UNWANTED);
    }
    signal::unblock_all();
    let code = at_work(job, slot, owner).err().unwrap_or(EXIT_FINISHED);
    if measured {
        measure_memory(slot);
    }
    exit_now(code)
}

/// From now on the end of `parent` is that of this process; if it has come already, at once.
pub(crate) fn die_with_parent(parent: Pid) -> std::io::Result<()> {
    if !failpoints::is_on("outlive the caller") && !die_with(parent)? {
        exit_now(EXIT_UNWANTED);
    }
    Ok(())
}

/// From now on panics and faults of this process leave word in `slot`.
pub(crate) fn take_slot(slot: &Slot) {
    OWN_SLOT.store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
}

/// What every worker does before it works: signals, score, arithmetic.
pub(crate) fn put_process_in_order() {
    if !failpoints::is_on("keep signal handlers") {
        signal::reset_dispositions();
    }
    // SAFETY: `note_fault` only stores to atomics.
    unsafe { signal::handle_faults(note_fault) };
    if !failpoints::is_on("no oom score") {
        procfs::prefer_as_oom_victim();
    }
    if !failpoints::is_on("keep the fpu mode") {
        fpu::set_default();
    }
}

/// Notes how much memory this process has.
pub(crate) fn measure_memory(slot: &Slot) {
    let memory = procfs::own_memory().unwrap_or_default();
    slot.tally.note_memory(memory.private, memory.proportional);
}

/// Works on a call until nothing is left for this worker.
///
/// # Errors
/// The exit code that says why the kernel, or what it needs, has failed. The slot says more, and the unit stays claimed: this
/// process is to leave with it.
pub(crate) fn at_work(job: &Job<'_>, slot: &Slot, owner: Owner) -> Result<(), i32> {
    match end_of_work(catch_unwind(AssertUnwindSafe(|| work(job, slot, owner))), slot) {
        EXIT_FINISHED => Ok(()),
        code => Err(code),
    }
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

/// Leaves, with word of what could not be set up.
pub(crate) fn fail_setup(slot: &Slot, what: impl fmt::Display) -> ! {
    slot.leave_message(MessageKind::Setup, what, "");
    exit_now(EXIT_SETUP_FAILED)
}

/// The number of an error, not its text: looking that up takes a lock and allocates.
pub(crate) fn errno(error: &std::io::Error) -> impl fmt::Display {
    struct Errno(i32);

    impl fmt::Display for Errno {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "errno {}", self.0)
        }
    }

    Errno(error.raw_os_error().unwrap_or(0))
}

/// Claims, runs, publishes, until there is nothing left or the kernel fails. A failed unit stays claimed.
fn work(job: &Job<'_>, slot: &Slot, owner: Owner) -> ControlFlow<()> {
    let mut last = Instant::now();
    let mut next = usize::MAX;
    while let Some(mut claim) = job.control.next_claim(job.blocks, owner, &mut next) {
        let rows = claim.block().rows();
        slot.set_row(rows.start);
        let station = job.control.station(owner.slot);
        (job.run)(&mut claim, &station)?;
        let done = station.digest(claim.block());
        // Counted before it is published: with the last block the call may be over, and the next begin.
        let now = Instant::now();
        slot.tally.count_block(rows.len(), now.duration_since(last).as_nanos().try_into().unwrap_or(u64::MAX));
        last = now;
        claim.publish(done);
    }
    ControlFlow::Continue(())
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
        slot.leave_fault(Fault { signal, address: ELSEWHERE.to_caller(address) });
    }
}

/// A panic's payload as text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a payload that is not a string")
}
