#![allow(unsafe_code, reason = "forks")]
//! Reserving memory where the kernel may kill for it.
//!
//! At the limit of a control group neither `fallocate` nor a page fault says no: the kernel kills a
//! process of the group, and that may be the caller. So where an array would take a large part of
//! the room that is left, a forked child reserves its memory, as the process that the kernel kills
//! first. The memory that the child gets belongs to the file, not to the child, so the parent finds
//! all of it there. If the child is killed, the parent lives to tell.
//!
//! The limit and the kill are described in
//! [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html) and in the kernel's
//! [cgroup-v2](https://docs.kernel.org/admin-guide/cgroup-v2.html).
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

/// What has to be left beside the reservation, in bytes. Without it the caller would be killed for
/// the next thing that it does: start threads to fill the array, touch its own heap, read back its
/// own code. The child takes it, too, and leaves it behind.
const HEADROOM: usize = 4 << 20;

/// How far the child has come, in the one word that it shares with its parent. The word is 0 from
/// the start, so a child that never gets to write it counts as killed.
const KILLED: u64 = 0;
/// The reservation and the headroom were there.
const DONE: u64 = 1;
/// This, and an errno added to it: the error that the child met.
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
    // Others may change the file meanwhile. The difference serves for the numbers of an error
    // alone.
    let taken = allocated().saturating_sub(before);
    match outcome {
        DONE => Ok(()),
        // The child got all that there was, and it was too little, even if only for the headroom.
        // The number must be below the need, or the error would contradict itself.
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

/// How long the child may take. The largest machine finds the memory that it has in less.
const CHILD_LIMIT: Duration = Duration::from_secs(600);

/// Runs `work` in a child that is the kernel's first victim, and waits for its end. The outcome is
/// read from a shared word, not from the exit status: a host may have taken the status, by ignoring
/// SIGCHLD or waiting for strangers.
///
/// See [fork(2)](https://man7.org/linux/man-pages/man2/fork.2.html).
///
/// # Errors
/// No memory for the shared pages, no fork, or `TimedOut`.
fn by_a_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let pages = SharedPages::new(HEADROOM)?;
    // All pages of the headroom; its first word is the outcome.
    let words = pages.slice_of::<AtomicU64>(0, HEADROOM / size_of::<AtomicU64>());
    let outcome = &words[0];
    let parent = process::own_pid();
    // SAFETY: the child calls nothing but what is said at the head of this file.
    match unsafe { process::fork() }? {
        Side::Child => {
            // Its drop ends the child if `work` panics.
            let _never_returns = ExitNow;
            // A parent that is gone has no use for the memory, so nothing is taken then.
            let worked = process::die_with(parent).and_then(|parent_lives| {
                procfs::prefer_as_oom_victim();
                if parent_lives { work() } else { Ok(()) }
            });
            // One store to each page takes the memory of the headroom. A child that is killed here
            // leaves `KILLED`, as one that is killed in `work` does. All orderings are relaxed: the
            // parent reads after this process has ended, which orders everything.
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
                    // The child may be stopped, or in an `atfork` handler that waits for another
                    // thread of ours.
                    let hangs = !child.ends_by(Instant::now() + CHILD_LIMIT);
                    if hangs {
                        child.kill();
                    }
                    child.reap();
                    if hangs {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                // No descriptor is free, or somebody else has reaped it already: then there is
                // nothing to wait for.
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
