//! Signals: the mask around a fork, and a child's own dispositions.
//!
//! # Safety
//! Installing a handler is unsafe because it runs between any two instructions: [`handle_faults`]
//! asks that its handler do nothing but atomic stores.
#![allow(unsafe_code, reason = "sigaction takes a function pointer")]

use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};

/// All signals blocked in this thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct BlockedSignals {
    /// The mask to put back.
    before: SigSet,
}

impl BlockedSignals {
    /// Blocks every signal that can be blocked, in this thread alone.
    ///
    /// See [`pthread_sigmask(3)`](https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html).
    pub(crate) fn all() -> io::Result<Self> {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        Ok(Self { before })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // The call fails only for an invalid `how`.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// In a child: puts every signal back to its default. Then it ignores the signals that a terminal
/// or a shell sends to the whole group, because the caller alone decides what they mean, and
/// SIGPIPE.
///
/// A handler of the caller's would do harm in a child: it may write to a pipe that both share, or
/// wait for threads that are not there.
///
/// See [sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html) and
/// [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html).
pub(crate) fn reset_dispositions() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in
        Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
    {
        let ignored = matches!(
            signal,
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGPIPE
        );
        // SAFETY: no handler of ours is involved; the default and "ignore" are always sound.
        let _ = unsafe { sigaction(signal, if ignored { &ignore } else { &default }) };
    }
    // The range is asked for, because libc keeps some real-time signals for itself.
    for realtime in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: as above; nix does not name real-time signals.
        unsafe { libc::signal(realtime, libc::SIG_DFL) };
    }
}

/// In a child: lets all signals through again, once its own dispositions are in force.
///
/// See [`pthread_sigmask(3)`](https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html).
pub(crate) fn unblock_all() {
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// The handler of a memory fault. It is given the signal's number and the address of the fault.
pub(crate) type FaultHandler = fn(i32, usize);

/// A [`FaultHandler`]; null until one is installed. It is an atomic, because the signal handler
/// that reads it may run at any time.
static FAULT_HANDLER: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// In a child: has `handler` called on SIGSEGV and SIGBUS, after which the process dies of that
/// signal as it would have without. It runs on the thread's alternate stack where there is one, so
/// that it survives a stack overflow.
///
/// See [sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html),
/// [sigaltstack(2)](https://man7.org/linux/man-pages/man2/sigaltstack.2.html) and
/// [signal-safety(7)](https://man7.org/linux/man-pages/man7/signal-safety.7.html).
///
/// # Safety
/// `handler` must be async-signal-safe: atomic stores, no lock, no allocation.
pub(crate) unsafe fn handle_faults(handler: FaultHandler) {
    FAULT_HANDLER.store(handler as *mut (), Ordering::Relaxed);
    // SA_RESETHAND: the handler returns to the instruction that faulted, and the second fault takes
    // the default way. So the status that the parent reads is that of the fault itself.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: `on_fault` does atomic loads, async-signal-safe calls, and `handler`, which the
        // caller vouches for.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// What the kernel calls on a fault. A positive `si_code` says that the kernel itself has sent the
/// signal, and only then there is an address.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo_t with SA_SIGINFO.
    let info = unsafe { &*info };
    if info.si_code > 0 {
        // SAFETY: SIGSEGV and SIGBUS from the kernel carry an address.
        let address = unsafe { info.si_addr() } as usize;
        let handler = FAULT_HANDLER.load(Ordering::Relaxed);
        // SAFETY: the word was stored from a `FaultHandler` before this handler was installed.
        let handler = unsafe { std::mem::transmute::<*mut (), FaultHandler>(handler) };
        handler(signal, address);
    } else {
        // Somebody's kill() has sent it: the instruction will not fault again on return, so the
        // signal is raised again. It is at its default by now. SAFETY: raise is async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}
