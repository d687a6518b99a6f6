//! Anonymous shared memory for the control block. It is shared with the children of a fork, has no
//! name, and goes with its last process.
//!
//! # Safety
//! `SharedPages` owns its mapping and unmaps it on drop. It hands out only references to types
//! marked [`AllAtomic`], so that concurrent stores by other processes are values, never undefined
//! behaviour.
#![allow(unsafe_code, reason = "maps memory and gives out typed references into it")]

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicU32, Ordering};

use super::inherited;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A type that may lie in memory that other processes write to at any time.
///
/// # Safety
/// Every byte belongs to an atomic integer, or is padding that is never read; every bit pattern is
/// valid.
pub(crate) unsafe trait AllAtomic: Sync {}

// SAFETY: it is an atomic integer.
unsafe impl AllAtomic for AtomicU64 {}

/// Makes whole pages of this process's address space read-only: a store to them is a fault from now
/// on. A worker does so with every segment that its call does not write to, so that a stray store
/// kills the worker and not the data.
///
/// See [mprotect(2)](https://man7.org/linux/man-pages/man2/mprotect.2.html).
///
/// # Safety
/// `range` is page-aligned and mapped, and nobody is to store to it through a reference from
/// before.
pub(crate) unsafe fn make_read_only(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: as the caller promises.
    unsafe { protect(range, ProtFlags::PROT_READ) }
}

/// Makes them writable again.
///
/// See [mprotect(2)](https://man7.org/linux/man-pages/man2/mprotect.2.html).
///
/// # Safety
/// `range` is page-aligned, and a mapping of a file that was opened to be written to.
pub(crate) unsafe fn make_writable(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: as the caller promises.
    unsafe { protect(range, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }
}

unsafe fn protect(range: &Range<usize>, protection: ProtFlags) -> io::Result<()> {
    let start = ptr::with_exposed_provenance_mut::<c_void>(range.start);
    let start = NonNull::new(start).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: as the callers promise.
    Ok(unsafe { mprotect(start, range.len(), protection) }?)
}

/// Zeroed anonymous memory that children of a fork share.
#[derive(Debug)]
pub(crate) struct SharedPages {
    start: NonNull<c_void>,
    len: usize,
    /// The process that keeps it from its children, which have something else there, or nothing; 0
    /// if no process does.
    kept_by: AtomicU32,
}

// SAFETY: the memory is reached only through shared references to `AllAtomic` types, which are
// `Sync`.
unsafe impl Send for SharedPages {}
// SAFETY: as above.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// Maps `len` zero bytes, or one if `len` is 0. A page takes memory when it is first written
    /// to.
    ///
    /// See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
    ///
    /// # Errors
    /// That of `mmap`.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(len).unwrap_or(NonZeroUsize::MIN);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let start = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { start, len, kept_by: AtomicU32::new(0) })
    }

    /// Keeps the memory from the children of later forks of this process. Children of earlier forks
    /// keep it.
    pub(crate) fn keep_from_children(&self) {
        self.kept_by.store(std::process::id(), Ordering::Relaxed);
        // SAFETY: a whole mapping, and no later child looks for it.
        unsafe { inherited::keep_from_children(self.start.as_ptr(), self.len) };
    }

    /// The `count` values of type `T` that lie `offset` bytes from the start.
    ///
    /// # Panics
    /// When they reach past the end or are not aligned: a fault of the caller's layout arithmetic.
    pub(crate) fn slice_of<T: AllAtomic>(&self, offset: usize, count: usize) -> &[T] {
        let bytes = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(bytes.is_some_and(|end| end <= self.len), "slice beyond the shared pages");
        // SAFETY: `offset <= self.len` was just asserted.
        let start = unsafe { self.start.cast::<u8>().add(offset) }.cast::<T>();
        assert!(start.is_aligned(), "slice not aligned in the shared pages");
        // SAFETY: in bounds and aligned as asserted, zeroed at birth, valid for any bits
        // (`AllAtomic`), and mapped for as long as `self` is borrowed.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), count) }
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // For a child forked after `keep_from_children` these addresses are not its own to unmap.
        if ![0, std::process::id()].contains(self.kept_by.get_mut()) {
            return;
        }
        // SAFETY: our own mapping, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.len.max(1)) };
        debug_assert!(unmapped.is_ok());
    }
}
