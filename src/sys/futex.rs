//! Futexes that work between processes. (The PRIVATE flag would keep a wake-up inside one process.)
//!
//! A forked worker waits here for the word of its parent that lets it begin, or sends it away.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::thread::futex;

/// Sleeps until `word` is no longer `value`. Allocates nothing; fit for a forked child.
///
/// The kernel compares the word once more before it puts the thread to sleep, so a store between
/// the look here and the sleep is not missed (`EAGAIN`). The Acquire pairs with the Release of
/// [`store_and_wake`]: what was written before that store is seen after this call.
///
/// See [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html).
pub(crate) fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(Ordering::Acquire) == value {
        match futex::wait(word, futex::Flags::empty(), value, None) {
            Ok(()) | Err(Errno::INTR | Errno::AGAIN) => {}
            // Nothing else can come of a valid word. If it does all the same, look again after a
            // breath rather than spin.
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Stores `value` and wakes all processes that wait on `word`. The store comes first: a waiter that
/// wakes finds the new value.
///
/// See [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html).
pub(crate) fn store_and_wake(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    // An error is impossible for a valid word, and would mean a waiter that looks again by itself.
    let _ = futex::wake(word, futex::Flags::empty(), u32::MAX);
}
