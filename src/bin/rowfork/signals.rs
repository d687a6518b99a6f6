//! Signals such as ^C: the command cancels what is running, tidies up, and exits with 128 plus the
//! signal's number.
//!
//! # Safety
//! The handler stores and loads atomics, writes to a descriptor that was made before it was
//! installed, and calls `_exit`: each is async-signal-safe (signal-safety(7)).
#![allow(unsafe_code, reason = "installs a signal handler")]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rowfork::CancelToken;

use crate::failure::Failure;

/// The signal that came, 0 for none.
static CAME: AtomicI32 = AtomicI32::new(0);

/// What a signal does now.
static RULE: AtomicU8 = AtomicU8::new(Rule::Leave as u8);

/// Whether there is something that only this process can take away, until the end.
static STAYS: AtomicBool = AtomicBool::new(false);

static TOKEN: OnceLock<CancelToken> = OnceLock::new();

/// What a signal does, by what the command is at.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Rule {
    /// There is nothing to tidy up (segments and drafts have no name yet): the process ends where
    /// it is.
    Leave,
    /// Workers run, or there is a name to be taken away: the signal is noted and the call
    /// cancelled, and the command tidies up.
    Note,
    /// The answer gets its name, or has it, and the command ends within microseconds. The signal
    /// comes too late.
    Ignore,
}

/// Catches SIGINT, SIGTERM and SIGHUP from here on. A signal that was ignored when the command was
/// started (`nohup`) stays ignored.
pub(crate) fn listen() {
    if let Ok(token) = CancelToken::new() {
        let _ = TOKEN.set(token); // without descriptors there will be no workers to cancel
    }
    let caught = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .filter(|signal| !is_ignored(*signal))
    {
        // SAFETY: `on_signal` is async-signal-safe, see the module.
        let _ = unsafe { sigaction(signal, &caught) };
    }
}

fn is_ignored(signal: Signal) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: writes what there is to `now`, and changes nothing.
    if unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), now.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: just written, and plain data before.
    unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}

extern "C" fn on_signal(signal: libc::c_int) {
    // The interrupted code may be about to look at errno.
    let errno = Errno::last_raw();
    CAME.store(signal, Ordering::Relaxed);
    if RULE.load(Ordering::Relaxed) == Rule::Leave as u8 {
        // SAFETY: ends the process; nothing of its memory is looked at.
        unsafe { libc::_exit(128 + signal) }
    }
    TOKEN.get().map(CancelToken::cancel);
    Errno::set_raw(errno);
}

/// The exit code that says which signal came, if one did.
fn exit_code() -> Option<u8> {
    match CAME.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}

/// Does what has to be tidied up after: workers, names. A signal cancels it by the token that
/// `work` is given, if there is one.
pub(crate) fn while_noting<T, E: Into<Failure>>(
    work: impl FnOnce(Option<&CancelToken>) -> Result<T, E>,
) -> Result<T, Failure> {
    rule(Rule::Note);
    let done = work(TOKEN.get());
    if !STAYS.load(Ordering::Relaxed) {
        rule(Rule::Leave);
    }
    // A signal ends the command even if the call returned a result: a call that may go on without
    // rows is no error when it is cancelled, and neither is one that was over already.
    check()?;
    done.map_err(E::into)
}

/// From here on signals are only noted: there is something that this process has to take away.
pub(crate) fn only_note() {
    STAYS.store(true, Ordering::Relaxed);
    rule(Rule::Note);
}

/// The last thing that a command does: gives its answer a name. From here on it is too late for a
/// signal.
pub(crate) fn while_naming<T>(name: impl FnOnce() -> rowfork::Result<T>) -> Result<T, Failure> {
    rule(Rule::Ignore);
    check()?; // before it was
    Ok(name()?)
}

fn rule(rule: Rule) {
    RULE.store(rule as u8, Ordering::Relaxed);
}

fn check() -> Result<(), Failure> {
    exit_code().map_or(Ok(()), |code| Err(Failure::Interrupted(code)))
}
