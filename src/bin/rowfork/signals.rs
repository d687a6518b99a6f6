//! ^C and its like: what is running is cancelled and tidied up after, and the command exits with 128 and the signal's number.
//!
//! # Safety
//! The handler stores and loads atomics, writes to a descriptor that was made before it was installed, and calls `_exit`: each
//! is async-signal-safe (signal-safety(7)).
#![allow(unsafe_code, reason = "installs a signal handler")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rowfork::CancelToken;

use crate::failure::Failure;

/// The signal that came, 0 for none.
static CAME: AtomicI32 = AtomicI32::new(0);

/// What the command is at.
static PHASE: AtomicU8 = AtomicU8::new(Phase::Preparing as u8);

static TOKEN: OnceLock<CancelToken> = OnceLock::new();

/// What a signal may do, by what the command is at.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Phase {
    /// Nothing is there that anybody sees (segments and drafts have no name yet): the process ends where it is.
    Preparing,
    /// Workers run: the call is cancelled, and they are gone when it returns.
    Running,
    /// The answer gets its name, or has it, which ends the command within microseconds: a signal comes too late.
    Naming,
}

/// Catches SIGINT, SIGTERM and SIGHUP from here on, but for those that whoever started the command has had ignored
/// (`nohup`).
pub(crate) fn listen() {
    let Ok(token) = CancelToken::new() else { return };
    let _ = TOKEN.set(token);
    let caught = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: `on_signal` is async-signal-safe, see the module.
        let before = unsafe { sigaction(signal, &caught) };
        if let Ok(before) = before
            && matches!(before.handler(), SigHandler::SigIgn)
        {
            // SAFETY: ignoring runs no code.
            let _ = unsafe { sigaction(signal, &before) };
        }
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    CAME.store(signal, Ordering::Relaxed);
    if PHASE.load(Ordering::Relaxed) == Phase::Preparing as u8 {
        // SAFETY: ends the process; nothing of its memory is looked at.
        unsafe { libc::_exit(128 + signal) }
    }
    TOKEN.get().map(CancelToken::cancel);
}

/// The exit code that says which signal came, if one did.
pub(crate) fn exit_code() -> Option<u8> {
    match CAME.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}

/// Does what has workers: a signal cancels it by the token that `work` is given, if there is one.
pub(crate) fn while_running<T>(work: impl FnOnce(Option<&CancelToken>) -> rowfork::Result<T>) -> Result<T, Failure> {
    PHASE.store(Phase::Running as u8, Ordering::Relaxed);
    let done = work(TOKEN.get());
    PHASE.store(Phase::Preparing as u8, Ordering::Relaxed);
    // A call that goes on without rows is no error when it is cancelled, and one that was over no longer is.
    if exit_code().is_some() { Err(Failure::Interrupted) } else { Ok(done?) }
}

/// The last thing that a command does: gives its answer a name. From here on it is too late for a signal.
pub(crate) fn while_naming<T>(name: impl FnOnce() -> T) -> T {
    PHASE.store(Phase::Naming as u8, Ordering::Relaxed);
    name()
}
