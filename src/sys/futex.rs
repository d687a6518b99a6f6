//! Futexes that work between processes (the PRIVATE flag would keep a wake-up inside one process).

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::thread::futex;

/// Sleeps until `word` is no longer `value`. Allocates nothing; fit for a forked child.
pub(crate) fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(Ordering::Acquire) == value {
        match futex::wait(word, futex::Flags::empty(), value, None) {
            Ok(()) | Err(Errno::INTR | Errno::AGAIN) => {}
            // Nothing else can come of a valid word; if it does, look again after a breath rather
            // than spin.
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Stores `value` and wakes all who wait on `word`.
pub(crate) fn store_and_wake(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    // An error is impossible for a valid word, and would mean a waiter that looks again by itself.
    let _ = futex::wake(word, futex::Flags::empty(), u32::MAX);
}
