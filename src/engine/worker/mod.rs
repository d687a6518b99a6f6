//! A worker's whole life, from the fork to `_exit`: put the process in order, wait for `go`, then
//! claim, run and publish until nothing is left.
//!
//! The executors call this in the child of a fork: fork mode calls [`live`], and a pool's worker
//! calls the parts of it. Before the kernel runs, and around it, this file takes no lock and
//! allocates nothing: the parent's other threads do not exist here, and a lock that one of them
//! held is held for ever.
//!
//! | file | what |
//! |---|---|
//! | `own_slot.rs` | the slot of this process |
//! | `panic_hook.rs` | leaves word of a panic in the slot |
//! | `fault_map.rs` | translates the address of a fault to the caller's address |
//!
//! # Safety
//! A worker makes memory read-only that it has inherited: whole mappings of segments that it does
//! not write to.
#![allow(unsafe_code, reason = "a fault handler, mprotect")]

mod fault_map;
mod own_slot;
mod panic_hook;

pub(crate) use self::fault_map::{FAULT_MAP, FAULT_MAP_MAX};
pub(crate) use self::own_slot::take_slot;
pub(crate) use self::panic_hook::{install_panic_hook, panic_text};

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::own_slot::note_fault;

use crate::engine::blocks::RowBlocks;
use crate::engine::control::{BlockContext, Claim, Control, MessageKind, Owner, Slot};
use crate::failpoints::{Failpoint, is_on};
use crate::sys::process::{Exit, Pid, die_with, exit_now};
use crate::sys::{fpu, futex, procfs, shared, signal};

/// Runs the kernel on the rows of a won block and writes their output. `Break` says that it has
/// failed; the slot says why.
pub(crate) type BlockFn<'a> = dyn Fn(&mut Claim<'_>, &BlockContext<'_>) -> ControlFlow<()> + 'a;

/// What a worker needs to know of a call. In fork mode it is in the parent's memory, and the child
/// has a copy by the fork.
pub(crate) struct Work<'a> {
    pub(crate) control: Control<'a>,
    pub(crate) blocks: &'a RowBlocks,
    /// What is run on each block.
    pub(crate) run: &'a BlockFn<'a>,
}

/// Value of the slot's `go` word while the worker has to wait.
pub(crate) const WAIT: u32 = 0;
/// The parent watches this worker, which may begin.
pub(crate) const GO: u32 = 1;
/// The parent could not watch this worker, which has to leave.
pub(crate) const ABANDON: u32 = 2;

/// Exit code of a worker that found nothing left to claim.
const EXIT_FINISHED: i32 = 0;
/// Exit code after a failure of the kernel; the slot says why. (A Rust program that panics exits
/// with 101, too.)
const EXIT_KERNEL_FAILED: i32 = 101;
/// Exit code of a worker whose parent was gone before the worker could be tied to it, or could not
/// watch it. No process reads this one.
const EXIT_UNWANTED: i32 = 102;
/// Exit code after a system call has failed that the worker cannot do without: before a kernel may
/// run, or when values are to be written to the output. The slot says which.
const EXIT_SETUP_FAILED: i32 = 103;

/// Whether a message of this kind may be believed of a worker that ended in this way. The message
/// may be the work of a stray store, or of a panic that the kernel has caught, and then the
/// worker's end does not fit it.
pub(crate) fn vouches_for(exit: Exit, kind: MessageKind) -> bool {
    match kind {
        _ if is_on(Failpoint::BelieveMessageAfterAnyExit) => true,
        MessageKind::PanicDraft => false,
        MessageKind::Panic => {
            matches!(
                exit,
                Exit::Code(EXIT_KERNEL_FAILED) | Exit::Signal(libc::SIGABRT) | Exit::Unknown
            )
        }
        MessageKind::KernelError | MessageKind::SignedOverflow | MessageKind::UnsignedOverflow => {
            matches!(exit, Exit::Code(EXIT_KERNEL_FAILED) | Exit::Unknown)
        }
        MessageKind::Setup => matches!(exit, Exit::Code(EXIT_SETUP_FAILED) | Exit::Unknown),
    }
}

/// The life of a worker that is forked for one call. Never returns, and never unwinds into the
/// parent's frames.
///
/// `read_only` are the address ranges that the worker must not write to: all segments except the
/// output of the call, and under guard the output, too.
pub(crate) fn live(
    work: &Work<'_>,
    read_only: &[Range<usize>],
    measured: bool,
    parent: Pid,
    owner: Owner,
) -> ! {
    let slot = &work.control.slots()[usize::from(owner.slot)];
    if is_on(Failpoint::LateParentDeathSignal) {
        std::thread::sleep(Duration::from_secs(1));
    }
    if let Err(error) = die_with_parent(parent) {
        fail_setup(slot, format_args!("prctl(PR_SET_PDEATHSIG): {}", errno(&error)));
    }
    take_slot(slot);
    put_process_in_order();
    for range in read_only.iter().filter(|_| !is_on(Failpoint::WritableSegments)) {
        // SAFETY: a whole mapping of a segment. It was listed under the registry's lock, which was
        // held across the fork. A store to it is a fault from now on, as intended.
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
    let code = at_work(work, slot, owner).err().unwrap_or(EXIT_FINISHED);
    if measured {
        measure_memory(slot);
    }
    exit_now(code)
}

/// From now on this process dies when `parent` does. If `parent` is gone already, it leaves at
/// once.
pub(crate) fn die_with_parent(parent: Pid) -> std::io::Result<()> {
    if !is_on(Failpoint::WorkersOutliveCaller) && !die_with(parent)? {
        exit_now(EXIT_UNWANTED);
    }
    Ok(())
}

/// What every worker does before it works: default signal handlers, a handler for memory faults, a
/// high score for the OOM killer, and the default floating-point mode.
pub(crate) fn put_process_in_order() {
    if !is_on(Failpoint::KeepSignalHandlers) {
        signal::reset_dispositions();
    }
    // SAFETY: `note_fault` only stores to atomics.
    unsafe { signal::handle_faults(note_fault) };
    if !is_on(Failpoint::NoOomScore) {
        procfs::prefer_as_oom_victim();
    }
    if !is_on(Failpoint::KeepFpuMode) {
        fpu::set_default();
    }
}

/// Notes in the slot how much memory this process has; 0 if the system does not tell.
pub(crate) fn measure_memory(slot: &Slot) {
    let memory = procfs::own_memory().unwrap_or_default();
    slot.tally.note_memory(memory.private, memory.proportional);
}

/// Works on a call until nothing is left for this worker.
///
/// # Errors
/// The exit code that says why the kernel, or a system call around it, has failed. The slot says
/// more. The unit stays claimed, and this process has to leave with that code.
pub(crate) fn at_work(work: &Work<'_>, slot: &Slot, owner: Owner) -> Result<(), i32> {
    match end_of_work(catch_unwind(AssertUnwindSafe(|| claim_and_run(work, slot, owner))), slot) {
        EXIT_FINISHED => Ok(()),
        code => Err(code),
    }
}

/// For tests: hangs, in the first worker or in every one, as a worker does that waits for an
/// inherited lock.
fn hang_if_asked(slot: &Slot) {
    let first = is_on(Failpoint::FirstWorkerHangsAtStart) && slot.tally.starts() == 1;
    while first || is_on(Failpoint::WorkersHangAtStart) {
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
            // The hook has drafted the message already, unless the host has replaced our hook, or
            // the kernel has resumed an unwinding that it had caught.
            let text = panic_text(&*payload);
            if !slot.confirm_panic(text) {
                slot.leave_message(MessageKind::Panic, text, "");
            }
            // The payload's destructor is the user's, and could panic again.
            std::mem::forget(payload);
            EXIT_KERNEL_FAILED
        }
    }
}

/// Leaves a message about what could not be set up, and exits.
pub(crate) fn fail_setup(slot: &Slot, what: impl fmt::Display) -> ! {
    slot.leave_message(MessageKind::Setup, what, "");
    exit_now(EXIT_SETUP_FAILED)
}

/// The number of an error. Its text would have to be looked up, which takes a lock and allocates.
pub(crate) fn errno(error: &std::io::Error) -> impl fmt::Display {
    struct Errno(i32);

    impl fmt::Display for Errno {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "errno {}", self.0)
        }
    }

    Errno(error.raw_os_error().unwrap_or(0))
}

/// Claims, runs and publishes units until nothing is left or the kernel fails. A failed unit stays
/// claimed.
fn claim_and_run(work: &Work<'_>, slot: &Slot, owner: Owner) -> ControlFlow<()> {
    let mut last = Instant::now();
    let mut next = usize::MAX;
    while let Some(mut claim) = work.control.next_claim(work.blocks, owner, &mut next) {
        let rows = claim.block().rows();
        slot.set_row(rows.start);
        let context = work.control.block_context(owner.slot);
        (work.run)(&mut claim, &context)?;
        let done = context.digest(claim.block());
        // The unit is counted before it is published: with the last one the call may be over, and
        // the next call may begin to count in the same slot.
        let now = Instant::now();
        slot.tally.count_block(
            rows.len(),
            now.duration_since(last).as_nanos().try_into().unwrap_or(u64::MAX),
        );
        last = now;
        claim.publish(done);
    }
    ControlFlow::Continue(())
}
