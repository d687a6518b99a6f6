#![allow(unsafe_code, reason = "forks")]
//! Reserving memory where the kernel may kill for it.
//!
//! At the limit of a control group neither `fallocate` nor a page fault says no: the kernel kills a
//! process of the group, and that may be the caller. So where an array would take a large part of
//! the room that is left, a forked child reserves its memory, as the process that the kernel kills
//! first. What the child gets is the file's, not the child's, so the parent finds all of it there;
//! and if the child is killed, the parent lives to tell.
//!
//! # Safety
//! The child makes system calls only, on descriptors and addresses that it has inherited: it takes
//! no lock and allocates nothing, since the caller may have other threads. It leaves by `_exit`,
//! even if something in it panics.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::metadata::BLOCK;
use super::preflight::NearLimit;
use super::shortage::shm_error_beside;
use crate::error::{Error, Result};
use crate::sys::memory::SMALL_PAGE;
use crate::sys::process::{self, ChildFd, Side, exit_now};
use crate::sys::procfs;
use crate::sys::shared::SharedPages;

/// What has to be left beside the reservation, or the caller would be killed for the next thing
/// that it does: start threads to fill the array, touch its own heap, read back its own code. The
/// child takes it, too, and leaves it behind.
const HEADROOM: usize = 4 << 20;

/// How far the child has come, in the one word that it shares with its parent. Above this: the
/// error that it met.
const KILLED: u64 = 0;
const DONE: u64 = 1;
const FAILED: u64 = 2;

/// Has a child do `reservation`, which is to give `file` memory, `need` bytes in all.
///
/// # Errors
/// `MemoryLimit` if the child was killed, that of the reservation if it failed. What was reserved
/// until then is there: the caller gives it back.
pub(super) fn reserve(
    file: &File,
    need: u64,
    near_limit: NearLimit,
    reservation: impl FnOnce() -> io::Result<()>,
) -> Result<()> {
    let allocated = || file.metadata().map_or(0, |meta| meta.blocks() * BLOCK);
    let before = allocated();
    let failed = |taken, error| shm_error_beside(file, need, taken, error);
    let outcome = by_a_child(reservation).map_err(|error| failed(0, error))?;
    let taken = allocated().saturating_sub(before);
    match outcome {
        DONE => Ok(()),
        // All that there was, and it was too little: be it by the headroom.
        KILLED => Err(Error::MemoryLimit {
            need,
            available: taken.min(need.saturating_sub(1)),
            limit: near_limit.limit,
        }),
        errno => Err(failed(
            taken,
            io::Error::from_raw_os_error(i32::try_from(errno - FAILED).unwrap_or(libc::EIO)),
        )),
    }
}

/// Longer than the largest machine takes to find the memory that it has.
const CHILD_LIMIT: Duration = Duration::from_secs(600);

/// Runs `work` in a child that is the kernel's first victim, and waits for its end. How that came
/// about is read from a shared word, not from the exit status: that one a host may have taken, by
/// ignoring SIGCHLD or waiting for strangers.
fn by_a_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let pages = SharedPages::new(HEADROOM)?;
    let words = pages.slice_of::<AtomicU64>(0, HEADROOM / size_of::<AtomicU64>());
    let outcome = &words[0];
    let parent = process::own_pid();
    // SAFETY: the child calls nothing but what is said at the head of this file.
    match unsafe { process::fork() }? {
        Side::Child => {
            let _never_returns = ExitNow;
            let worked = process::die_with(parent).and_then(|parent_lives| {
                procfs::prefer_as_oom_victim();
                if parent_lives { work() } else { Ok(()) }
            });
            // All orderings are relaxed: read after this process has ended, which orders
            // everything.
            words
                .iter()
                .step_by(SMALL_PAGE / size_of::<AtomicU64>())
                .for_each(|word| word.store(KILLED, Ordering::Relaxed));
            let code = match worked {
                Ok(()) => DONE,
                Err(error) => {
                    FAILED + u64::try_from(error.raw_os_error().unwrap_or(libc::EIO)).unwrap_or(0)
                }
            };
            outcome.store(code, Ordering::Relaxed);
            exit_now(0)
        }
        Side::Parent(child) => {
            match ChildFd::open(child) {
                Ok(child) => {
                    // Stopped, or in an `atfork` handler that waits for another thread of ours.
                    let hangs = !child.ends_by(Instant::now() + CHILD_LIMIT);
                    if hangs {
                        child.kill();
                    }
                    child.reap();
                    if hangs {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                // No descriptor free, or somebody else has reaped it already: then there is nothing
                // to wait for.
                Err(_) => process::reap_by_pid(child, CHILD_LIMIT),
            }
            Ok(outcome.load(Ordering::Relaxed))
        }
    }
}

/// Ends the process, by `_exit`, where a panic would unwind into frames that are the parent's.
struct ExitNow;

impl Drop for ExitNow {
    fn drop(&mut self) {
        exit_now(1)
    }
}
