//! The panic hook. In a worker it leaves the panic's message in the worker's slot; in every other
//! process it calls the hook that was there before.
//!
//! Both executors install it before they fork.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::own_slot::own_slot;
use crate::engine::control::Slot;

/// Installs the panic hook, once per process, in the parent. The child cannot, since the hook is
/// behind a lock.
///
/// In a worker the hook writes message and location into the slot, so that they survive
/// `panic = "abort"` too. It prints nothing there: the caller gets a typed error. In every other
/// process it calls the hook that was there before.
///
/// While this thread unwinds (a call in a destructor) the hook cannot be changed, so nothing is
/// installed. Another thread may be stuck in the present hook (in a write to a full pipe, say), and
/// the change then waits behind a lock. So a thread of its own makes the change, and the caller
/// waits for that thread for [`HOOK_WAIT`] at most. Workers of a call without our hook leave the
/// payload alone, without the location.
pub(crate) fn install_panic_hook() {
    static STATE: Mutex<HookState> = Mutex::new(HookState::Missing);
    static CHANGED: Condvar = Condvar::new();
    // Read before the lock is taken. To lock it is to write to it, and after a fork that would be a
    // page to copy, for every call.
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
    let (mut seen, _) = CHANGED
        .wait_timeout_while(seen, HOOK_WAIT, waiting)
        .unwrap_or_else(PoisonError::into_inner);
    if *seen == HookState::Waiting {
        *seen = HookState::Stuck;
    }
}

/// How long the first call waits for the panic hook. Installing it takes 50 us.
const HOOK_WAIT: Duration = Duration::from_secs(1);

/// How far the installation is, in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HookState {
    /// No thread was started for it yet.
    Missing,
    /// A thread installs the hook, and calls wait for it.
    Waiting,
    /// No call waits any more. The thread may yet install the hook.
    Stuck,
    Installed,
}

/// Puts our hook in front of the one that is there. Waits while another thread is in a hook.
fn wrap_panic_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| match own_slot() {
        Some(slot) => note_panic(slot, info),
        None => before(info),
    }));
}

/// What the runtime says when a panic cannot unwind any further, just before it aborts. It adds
/// nothing to the panic that led to it, but that one is now final.
const ABORTING: [&str; 2] =
    ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];

/// In a worker: notes a panic in the slot, as a draft that counts once the panic is final.
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

/// A panic's payload as text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a payload that is not a string")
}
