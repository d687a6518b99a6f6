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

/// All signals blocked in this thread, until dropped.
#[derive(Debug)]
pub(crate) struct BlockedSignals {
    before: SigSet,
}

impl BlockedSignals {
    /// Blocks every signal that can be blocked.
    pub(crate) fn all() -> io::Result<Self> {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        Ok(Self { before })
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // Fails only for an invalid `how`.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// In a child: every signal back to its default, then ignores the ones that a terminal or a shell
/// sends to the whole group, because the caller alone decides what they mean, and SIGPIPE.
///
/// The caller's handlers are poison in a child: they may write to a pipe shared with it, or wait
/// for threads that are not there.
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
    for realtime in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: as above; nix does not name real-time signals.
        unsafe { libc::signal(realtime, libc::SIG_DFL) };
    }
}

/// In a child: lets all signals through again.
pub(crate) fn unblock_all() {
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// The handler of a memory fault: signal number and address.
pub(crate) type FaultHandler = fn(i32, usize);

/// A [`FaultHandler`]; null until one is installed.
static FAULT_HANDLER: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// In a child: has `handler` called on SIGSEGV and SIGBUS, after which the process dies of that
/// signal as it would have without. Runs on the thread's alternate stack where there is one, so
/// that it survives a stack overflow.
///
/// # Safety
/// `handler` must be async-signal-safe: atomic stores, no lock, no allocation.
pub(crate) unsafe fn handle_faults(handler: FaultHandler) {
    FAULT_HANDLER.store(handler as *mut (), Ordering::Relaxed);
    // SA_RESETHAND: the second fault, on return, takes the default way.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: `on_fault` does atomic loads, async-signal-safe calls, and `handler`, which the
        // caller vouches for.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

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
        // Sent by somebody's kill(): the instruction will not fault again on return, so raise it
        // again. SAFETY: raise is async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}
