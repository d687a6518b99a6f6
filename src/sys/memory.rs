#![allow(unsafe_code, reason = "mmap, munmap and madvise act on raw addresses")]
//! Mappings of files, and advice on memory. Called by `segment`, and by the workers of a pool,
//! which map the segments that they are sent.
//!
//! # Safety
//! A [`Map`] is the only owner of the address range that it names: it comes from the kernel in
//! [`Map::shared`] and goes back in `Drop`; nothing else unmaps. It hands out a pointer, never a
//! reference: what may be read and written through it, and when, is for the segment to argue.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;

use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};

/// The size of a huge page on the machines that this crate runs on, and the unit in which memory is
/// reserved.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// The size of a small page, in bytes.
pub(crate) const SMALL_PAGE: usize = 4096;

/// The address space in bytes that a mapping of `len` bytes takes while it is made. A large mapping
/// is reserved with 2 MiB more, and an aligned part is cut out of that. `None` if no address can
/// say as much.
pub(crate) fn mapping_bytes(len: usize) -> Option<usize> {
    len.checked_add(if len < HUGE_PAGE { 0 } else { HUGE_PAGE })
}

/// What a mapping may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading: any store through it is a fault.
    Read,
    /// Reading and writing. The file must be open for both.
    Write,
}

/// A shared mapping of the start of a file.
#[derive(Debug)]
pub(crate) struct Map {
    /// The first byte, which is the first byte of the file, too.
    start: NonNull<u8>,
    /// The length in bytes. The kernel rounds it up to whole pages, and so does every call that is
    /// made with it.
    len: NonZeroUsize,
}

// SAFETY: an address range belongs to the process, not to a thread; `munmap` may be called from
// any. This is the one place that makes `SharedArray` `Send` and `Sync`: it hands out `&[A]` from
// `&self` and `&mut [A]` from `&mut self` only, as `Vec` does, so threads of this process are kept
// apart by the borrow checker. Other *processes* are kept apart by other means: workers by the
// engine's claims, strangers by mode 0600 and by `attach` being `unsafe`.
unsafe impl Send for Map {}
// SAFETY: as above; `&Map` gives out an address and a length only.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `len` bytes of `file`. Address and file offset agree modulo 2 MiB, without
    /// which the kernel cannot map huge pages.
    ///
    /// The address range is reserved first, without memory, and the file is mapped over it. Between
    /// the two no other thread can take the addresses.
    ///
    /// See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
    pub(crate) fn shared(file: &File, len: NonZeroUsize, access: Access) -> io::Result<Self> {
        let reserved_len = mapping_bytes(len.get())
            .and_then(NonZeroUsize::new)
            .ok_or(nix::errno::Errno::ENOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing one.
        let reserved = unsafe {
            mman::mmap_anonymous(
                None,
                reserved_len,
                ProtFlags::PROT_NONE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )
        }?;
        // Owns the reservation from here on: an early return gives it back.
        let mut whole = Self { start: reserved.cast(), len: reserved_len };
        if reserved_len > len {
            whole = whole.trimmed(len);
        }
        let prot = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: the range that MAP_FIXED replaces is our own reservation, to which no pointer
        // exists.
        unsafe { mman::mmap(NonZeroUsize::new(whole.address()), len, prot, flags, file, 0) }?;
        Ok(whole)
    }

    /// Keeps `len` bytes from the first aligned address on and gives back what lies around them.
    fn trimmed(self, len: NonZeroUsize) -> Self {
        let head = self.address().next_multiple_of(HUGE_PAGE) - self.address();
        // SAFETY: head < HUGE_PAGE, and the reservation is HUGE_PAGE longer than `len`: the result
        // lies inside it.
        let start = unsafe { self.start.add(head) };
        let tail_at = head + len.get().next_multiple_of(SMALL_PAGE);
        let kept = Self { start, len };
        unmap(self.start, head);
        // SAFETY: at most one past the end of the reservation, whose length the kernel rounds up to
        // whole pages.
        unmap(
            unsafe { self.start.add(tail_at) },
            self.len.get().next_multiple_of(SMALL_PAGE).saturating_sub(tail_at),
        );
        std::mem::forget(self); // its range is now `kept` and two holes
        kept
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Its addresses.
    pub(crate) fn range(&self) -> Range<usize> {
        self.address()..self.address() + self.len()
    }

    /// Keeps the mapping out of core dumps. The kernel takes the memory of a file without a name
    /// for anonymous shared memory, and would write all of it into every dump.
    ///
    /// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html) and
    /// [core(5)](https://man7.org/linux/man-pages/man5/core.5.html).
    pub(crate) fn keep_out_of_core_dumps(&self) -> io::Result<()> {
        // SAFETY: MADV_DONTDUMP changes no memory; the range is ours.
        unsafe { mman::madvise(self.start.cast(), self.len(), MmapAdvise::MADV_DONTDUMP) }?;
        Ok(())
    }

    /// Turns the 2 MiB at `offset` into one huge page, and allocates and zeroes what was a hole
    /// (`MADV_COLLAPSE`, Linux 6.1; it ignores `huge=` and `shmem_enabled`). Any error means that
    /// the pages stay as they were.
    ///
    /// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
    ///
    /// # Panics
    /// If `offset` is not a multiple of 2 MiB, or the 2 MiB from there on are not all in the
    /// mapping.
    pub(crate) fn collapse(&self, offset: usize) -> io::Result<()> {
        // The number is from the kernel's `include/uapi/asm-generic/mman-common.h`.
        const MADV_COLLAPSE: libc::c_int = 25;
        assert!(
            offset.is_multiple_of(HUGE_PAGE) && offset + HUGE_PAGE <= self.len(),
            "not a whole chunk: {offset}"
        );
        // SAFETY: the assertion above keeps the address inside the mapping.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: MADV_COLLAPSE keeps the contents; the range is ours by the assertion above.
        let answer =
            unsafe { libc::madvise(at.as_ptr().cast::<c_void>(), HUGE_PAGE, MADV_COLLAPSE) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps the pages of `range`, as if each had been written to (`MADV_POPULATE_WRITE`). A kernel
    /// before Linux 5.14 does not know the advice; then nothing happens, and the first store to
    /// each page maps it.
    ///
    /// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
    ///
    /// # Panics
    /// If `range` does not start at a page, or reaches beyond the mapping.
    pub(crate) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        assert!(
            range.start.is_multiple_of(SMALL_PAGE) && range.end <= self.len(),
            "not of this mapping: {range:?}"
        );
        // SAFETY: the assertion above keeps the address inside the mapping.
        let at = unsafe { self.start.add(range.start) };
        // SAFETY: MADV_POPULATE_WRITE keeps the contents; the range is ours by the assertion above.
        match unsafe {
            libc::madvise(at.as_ptr().cast::<c_void>(), range.len(), libc::MADV_POPULATE_WRITE)
        } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                unknown if unknown.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        unmap(self.start, self.len());
    }
}

/// Asks for huge pages under memory that is not touched yet: it is filled several times faster.
/// Where the system has none, nothing changes. Less than 2 MiB holds no huge page.
///
/// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
pub(crate) fn prefer_huge_pages(bytes: &mut [u8]) {
    let start = bytes.as_mut_ptr();
    // The advice takes whole pages only: those that the slice has to itself.
    let head = start.align_offset(SMALL_PAGE).min(bytes.len());
    let len = (bytes.len() - head) / SMALL_PAGE * SMALL_PAGE;
    if len >= HUGE_PAGE {
        // SAFETY: at most one past the end of the slice.
        let at = unsafe { start.add(head) };
        // SAFETY: whole pages inside the slice; MADV_HUGEPAGE changes no contents.
        unsafe { libc::madvise(at.cast::<c_void>(), len, libc::MADV_HUGEPAGE) };
    }
}

/// Gives a range of a [`Map`] back. Only its owner calls this, and only when nobody holds a
/// reference into the range. An empty range is skipped, since the kernel answers it with `EINVAL`.
///
/// See [munmap(2)](https://man7.org/linux/man-pages/man2/munmap.2.html).
fn unmap(start: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: see the callers: the range belongs to a `Map` that gives it up.
        let answer = unsafe { mman::munmap(start.cast(), len) };
        debug_assert!(answer.is_ok(), "munmap: {answer:?}");
    }
}
