//! The table of all segment mappings of this process. Every map and unmap happens under its lock,
//! so a thread that holds the lock across `fork` knows exactly what the child has inherited.
//!
//! Executors need it for that: a worker makes every segment but its output read-only, and a zygote
//! lets go of them all. The supervisor looks up here which segment the address of a fault belongs
//! to.
//!
//! # Fork safety
//! The engine takes [`lock`] before it forks and drops its [`Guard`] in the parent *and* in the
//! child: in both the mutex is free again, and in the child [`Guard::mappings`] needs no lock and
//! allocates nothing. In a child forked by anybody else another thread may have held the lock for
//! ever: dropping a segment there uses [`try_lock`] and leaks an address range rather than hang.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

/// One live mapping.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    /// The first byte's address; a multiple of the page size.
    pub(crate) address: usize,
    /// Length in bytes, header included; the kernel rounds it up to whole pages.
    pub(crate) len: usize,
    /// What an error message calls it: `segment "prices"`, `a nameless segment`.
    pub(crate) label: Arc<str>,
}

impl Mapping {
    /// Its addresses, half-open.
    pub(crate) fn range(&self) -> Range<usize> {
        self.address..self.address + self.len
    }
}

/// A part of the program that wants to know when this process lets go of a segment. The caller's
/// side of a pool is one: it then tells the workers to unmap it.
pub(crate) trait Observer: Send + Sync {
    /// The segment with this id is dropped. This is called in whatever thread drops it.
    fn is_gone(&self, id: u64);
}

/// All live mappings. There are as many as arrays, so a look through all of them is quick enough.
static TABLE: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

/// Observers that were alive when they were last looked through. `Weak`, so that a pool ends when
/// its owner drops it.
static OBSERVERS: Mutex<Vec<Weak<dyn Observer>>> = Mutex::new(Vec::new());

/// The process that has, or had, observers; 0 if there were none.
static OBSERVED_IN: AtomicU32 = AtomicU32::new(0);

/// Tells `observer`, as long as it lives, of every segment that is dropped in this process.
pub(crate) fn observe(observer: Weak<dyn Observer>) {
    OBSERVED_IN.store(std::process::id(), Ordering::Relaxed);
    let mut observers = OBSERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    // Dead observers go here, so that many short-lived pools do not make the list grow.
    observers.retain(|observer| observer.strong_count() > 0);
    observers.push(observer);
}

/// Tells the observers. A forked child tells nobody, since another thread may have held the lock at
/// the fork; the observers are its parent's in any case.
pub(super) fn tell_that_it_is_gone(id: u64) {
    // Relaxed: the word only says whether to take the lock, and the lock orders the rest.
    let observed_in = OBSERVED_IN.load(Ordering::Relaxed);
    if observed_in != 0 && observed_in == std::process::id() {
        // The list is cloned and the lock released before anybody is told, so an observer may take
        // locks of its own and may call `observe`.
        let observers = OBSERVERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        observers.iter().filter_map(Weak::upgrade).for_each(|observer| observer.is_gone(id));
    }
}

/// The registry, locked: no segment is mapped or unmapped while it lives. It may be held across a
/// fork: the child gets a locked copy, and the guard's drop there frees the copy.
#[derive(Debug)]
pub(crate) struct Guard(MutexGuard<'static, Vec<Mapping>>);

/// Locks the registry. A panic under the lock leaves a whole table (each change is one push or one
/// `swap_remove`), so poison is ignored.
pub(crate) fn lock() -> Guard {
    Guard(TABLE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Locks the registry if it is free; never waits.
pub(super) fn try_lock() -> Option<Guard> {
    match TABLE.try_lock() {
        Ok(table) => Some(Guard(table)),
        Err(TryLockError::Poisoned(poisoned)) => Some(Guard(poisoned.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Guard {
    /// All live mappings, in no particular order.
    pub(crate) fn mappings(&self) -> &[Mapping] {
        &self.0
    }

    /// Adds a mapping, at once after it was made.
    pub(super) fn add(&mut self, mapping: Mapping) {
        self.0.push(mapping);
    }

    /// Removes the mapping at `address`, before it is unmapped. An address that is not there is no
    /// error.
    pub(super) fn remove(&mut self, address: usize) {
        if let Some(at) = self.0.iter().position(|m| m.address == address) {
            self.0.swap_remove(at);
        }
    }

    /// Changes what error messages call the mapping at `address`.
    pub(super) fn relabel(&mut self, address: usize, label: Arc<str>) {
        if let Some(mapping) = self.0.iter_mut().find(|m| m.address == address) {
            mapping.label = label;
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "forks")]
mod tests {
    use super::*;
    use crate::segment::birth;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, alarm, fork};

    #[test]
    fn a_mapping_is_listed_while_it_lives_under_its_present_name() {
        let mut segment = birth(None, "<f8", 8, &[3, 4], None).unwrap();
        let listed = |address| lock().mappings().iter().find(|m| m.address == address).cloned();
        let address = segment.address();
        let entry = listed(address).unwrap();
        assert_eq!((entry.len, &*entry.label), (4096 + 96, "a nameless segment"));
        let name = format!("rft-registry-{}", std::process::id());
        segment.publish(&name).unwrap();
        assert_eq!(&*listed(address).unwrap().label, format!("segment {name:?}"));
        // Another thread drops the segment while this one holds the lock: the mapping must stay
        // until the lock is free.
        let guard = lock();
        let dropped = std::thread::spawn(move || drop(segment));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(guard.mappings().iter().any(|m| m.address == address), "unmapped under the lock");
        drop(guard);
        dropped.join().unwrap();
    }

    #[test]
    fn a_guard_held_across_fork_frees_the_lock_in_parent_and_child() {
        let segment = birth(None, "<f8", 8, &[3], None).unwrap();
        let guard = lock();
        // SAFETY: the child calls only what needs no lock but this one, and leaves by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                // A child that hangs is killed by SIGALRM, and the parent sees that it did not
                // exit.
                alarm::set(20);
                let listed = guard.mappings().iter().any(|m| m.address == segment.address());
                drop(guard);
                drop(lock());
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!listed)) }
            }
            ForkResult::Parent { child } => {
                drop(guard);
                drop(lock());
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn a_drop_in_a_child_forked_under_anothers_lock_does_not_hang() {
        let segment = birth(None, "<f8", 8, &[3], None).unwrap();
        let (locked, is_locked) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        // This thread does not exist in the child, so there the lock is never released.
        let holder = std::thread::spawn(move || {
            let _guard = lock();
            locked.send(()).unwrap();
            let _ = released.recv();
        });
        is_locked.recv().unwrap();
        // SAFETY: the child drops one segment, under an alarm, and leaves by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                alarm::set(20);
                drop(segment);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                let ended = waitpid(child, None).unwrap();
                drop(release);
                holder.join().unwrap();
                assert_eq!(ended, WaitStatus::Exited(child, 0));
            }
        }
    }
}
