#![allow(unsafe_code, reason = "lends disjoint chunks of a fresh mapping to several threads")]
//! Giving a fresh segment its memory, and filling it while that memory is still warm in the cache.
//!
//! From 2 MiB up this happens in parallel, chunk by chunk. One page is allocated (a full tmpfs says
//! `ENOSPC` here, no signal), then `MADV_COLLAPSE` turns the otherwise empty 2 MiB into one huge
//! page. Where that is refused the chunk is allocated with small pages, again with a clean
//! `ENOSPC`. If everything were allocated first, the small pages would be made only to be copied
//! and thrown away.
//!
//! # Safety
//! Chunks are disjoint ranges of a mapping that nobody else has a pointer into: the segment is
//! being born.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::header::DATA_OFFSET;
use super::mapping::Mapped;
use super::metadata::has_memory;
use super::parallel::{each_piece, in_original_process};
use super::shortage::shm_error;
use super::{preflight, reserve_in_child};
use crate::error::{Error, Result};
use crate::sys::file;
use crate::sys::memory::{HUGE_PAGE, SMALL_PAGE};

/// How many bytes one thread fills at a time where chunks of 2 MiB are too few to keep all threads
/// busy.
const SMALL_PIECE: usize = 32 << 10;

/// How many bytes of a segment lie in huge pages, and how many in small ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pages {
    /// Bytes in 2 MiB pages.
    pub huge_bytes: usize,
    /// Bytes in 4 KiB pages, header included.
    pub small_bytes: usize,
}

impl Pages {
    /// The sum of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            huge_bytes: self.huge_bytes + other.huge_bytes,
            small_bytes: self.small_bytes + other.small_bytes,
        }
    }
}

/// A function that fills the data bytes that start at the given offset (in bytes, header not
/// counted). Several threads call it at once, each for another part.
pub(crate) type Fill<'a> = dyn Fn(usize, &mut [u8]) -> Result<()> + Sync + 'a;

/// Reserves all of `mapping` and fills it. The first error stops the other threads.
///
/// With `huge`, from 2 MiB up, each chunk of 2 MiB is filled as soon as it is reserved. Without it,
/// or below that size, all small pages are reserved first and filled afterwards. `content` is never
/// called for bytes that have no memory yet.
///
/// # Errors
/// `ShmFull` or `Os` if the memory is refused, and those of `content`. What was taken until then
/// goes with the file.
pub(super) fn reserve(
    file: &File,
    mapping: &Mapped,
    huge: bool,
    content: Option<&Fill<'_>>,
) -> Result<Pages> {
    let total = mapping.map().len();
    // These are asked in this order: the last question starts rayon's threads, which a small array
    // has no use for, and whose home must be known by then.
    let alone = !in_original_process();
    let too_few =
        alone || total < HUGE_PAGE || total.div_ceil(HUGE_PAGE) < 4 * rayon::current_num_threads();
    let piece = if too_few { SMALL_PIECE } else { HUGE_PAGE };
    if total < HUGE_PAGE || !huge {
        allocate_all(file, 0..total as u64).map_err(|e| shm_error(file, total as u64, e))?;
        if let Some(fill) = content {
            each_piece(0..total, piece, |range| fill_piece(mapping, range, fill))?;
        }
        return Ok(Pages { huge_bytes: 0, small_bytes: total });
    }
    let huge_pages = AtomicU32::new(0);
    // Each thread fills the chunk that it has just allocated, or shares it out where chunks are
    // few. A second pass over the array would have to fetch it from memory again.
    each_piece(0..total, HUGE_PAGE, |chunk| {
        if reserve_chunk(file, mapping, &chunk).map_err(|e| shm_error(file, total as u64, e))? {
            huge_pages.fetch_add(1, Ordering::Relaxed); // a count; read after the threads have been joined
        }
        content.map_or(Ok(()), |fill| {
            each_piece(chunk, piece, |range| fill_piece(mapping, range, fill))
        })
    })?;
    // Only whole chunks are counted, so the product is at most `total`.
    let huge_bytes = huge_pages.into_inner() as usize * HUGE_PAGE;
    Ok(Pages { huge_bytes, small_bytes: total - huge_bytes })
}

/// Gives all of `mapping` memory by system calls alone, in order, and the page tables to reach it
/// by. The limit on memory has to allow for all of that before [`reserve`] can fill it. A child
/// does this: see `reserve_in_child`.
///
/// It allocates nothing and takes no lock. The page tables are the child's and go with it; the
/// parent makes its own in the room that they leave.
pub(super) fn reserve_only(file: &File, mapping: &Mapped, huge: bool) -> io::Result<()> {
    let total = mapping.map().len();
    for start in (0..total).step_by(HUGE_PAGE) {
        let chunk = start..total.min(start + HUGE_PAGE);
        if huge {
            reserve_chunk(file, mapping, &chunk)?;
        } else {
            file::allocate(file, chunk.start as u64, chunk.len() as u64)?;
        }
        mapping.map().populate(chunk)?;
    }
    Ok(())
}

/// Gives a range of a file small pages, where it has none. It does so in steps of 64 MiB: a signal
/// that interrupts an older kernel costs one step only. An error leaves the steps before it as they
/// are by then: allocated.
pub(super) fn allocate_all(file: &File, Range { start, end }: Range<u64>) -> io::Result<()> {
    // In bytes: many pages for a system call, and few to do again.
    const STEP: u64 = 64 << 20;
    let mut at = start;
    while at < end {
        file::allocate(file, at, (end - at).min(STEP))?;
        at += STEP;
    }
    Ok(())
}

/// Gives a file that is no segment, all of whose `len` bytes will be written to, its room: on a
/// disk, or in memory, where there may be a limit. It returns `false` where the file system takes
/// none ahead, or says that it has and has not (a sparse file is all that some make).
///
/// `full` makes the error of a refusal, since its words depend on where the file is to go.
pub(crate) fn reserve_file(
    file: &File,
    len: u64,
    full: impl Fn(io::Error) -> Error,
) -> Result<bool> {
    let allocate = || allocate_all(file, 0..len);
    let near_limit = if file::is_in_memory(file) { preflight::check_memory(len)? } else { None };
    let taken = match near_limit {
        Some(near_limit) => {
            return reserve_in_child::reserve(file, len, near_limit, allocate).map(|()| true);
        }
        None => allocate(),
    };
    match taken {
        // The count of blocks tells whether the file system has kept its word.
        Ok(()) => Ok(file.metadata().is_ok_and(|meta| has_memory(&meta, len))),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(full(error)),
    }
}

/// Gives one chunk its memory; returns `true` if that is a huge page. The last chunk of a segment
/// may be shorter than 2 MiB, and then it never is.
fn reserve_chunk(file: &File, mapping: &Mapped, chunk: &Range<usize>) -> io::Result<bool> {
    if chunk.len() == HUGE_PAGE {
        file::allocate(file, chunk.start as u64, SMALL_PAGE as u64)?;
        // Whatever the reason of a refusal (no huge page free, a kernel before 6.1, memory limits):
        // small pages will do.
        if mapping.map().collapse(chunk.start).is_ok() {
            return Ok(true);
        }
    }
    file::allocate(file, chunk.start as u64, chunk.len() as u64).map(|()| false)
}

/// Hands the data bytes in the file range `piece` to `fill`. The bytes of the header's page are
/// left out; a piece that has no others is skipped.
fn fill_piece(mapping: &Mapped, piece: Range<usize>, fill: &Fill<'_>) -> Result<()> {
    let start = piece.start.max(DATA_OFFSET);
    if start >= piece.end {
        return Ok(());
    }
    // SAFETY: the pieces are disjoint and the mapping is known to the one birth that runs this.
    let bytes = unsafe { mapping.bytes_mut_unchecked(start..piece.end) };
    fill(start - DATA_OFFSET, bytes)
}
